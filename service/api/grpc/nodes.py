"""Connects nodes: a listener that admits only nodes, and the channels to the listeners of other nodes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import structlog

from service.api.grpc.advertised_address import AdvertisedAddress
from service.api.grpc.context import Handler
from service.api.grpc.drainable_streams import DrainableStreams
from service.api.grpc.forwarding import NodeAuthentication, OwnershipGuard
from service.api.grpc.interceptors import CallInterceptor
from service.api.grpc.limits import MAX_NODE_CONNECTIONS, server_options
from service.api.grpc.node_service import HandoverReceiver, NodeServicer
from service.api.grpc.qr_rendering import QrRenderer
from service.api.grpc.server import CannotListen
from service.api.grpc.services import Core, add_session_services
from service.auth.node_certificates import NAME, NodeCertificate
from service.protocol.methods import OWNER_METHODS
from service.telemetry.metrics import RpcMetrics
from zap.node.v1 import node_pb2_grpc

log = structlog.get_logger(__name__)

IDLE_CHANNEL_S = 60.0
"""Seconds for which a channel without calls is kept."""

_SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *server_options(MAX_NODE_CONNECTIONS),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    # Channels ping continuously, to detect a frozen node.
    ("grpc.http2.max_ping_strikes", 0),
)
_CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    # Certificates name the role of a node, not its address.
    ("grpc.ssl_target_name_override", NAME),
    ("grpc.max_receive_message_length", -1),
    # The kernel of a frozen node still accepts data. Pings spare callers the wait until their deadline.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # This is also the connect timeout: with less, nodes 80 ms apart cannot connect.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A proxy in the environment is meant for WhatsApp.
    ("grpc.enable_http_proxy", 0),
)


class NodeListener:
    """Serves zap.v1 to other nodes."""

    def __init__(
        self,
        core: Core,
        owned: OwnershipGuard,
        target: HandoverReceiver,
        incarnation: UUID,
        certificate: NodeCertificate,
        *,
        listen: str,
        advertise: str,
        database_hosts: Sequence[str],
        metrics: RpcMetrics,
    ) -> None:
        """Listen now and serve after `start`. Raise CannotListen.

        A node that listens on a wildcard address derives its advertised address from the route to `database_hosts`.
        """
        self._pictures = QrRenderer()
        interceptor = CallInterceptor(NodeAuthentication(), DrainableStreams(), metrics, owned)
        self._server = grpc.aio.server(interceptors=[_NodeMethodsOnly(), interceptor], options=_SERVER_OPTIONS)
        add_session_services(core, self._pictures, self._server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(NodeServicer(target, incarnation), self._server)
        try:
            port = self._server.add_secure_port(listen, certificate.for_server())
        except RuntimeError as error:
            raise CannotListen(f"ZAP_NODE_LISTEN: cannot listen on {listen}: is the port taken?") from error
        self._own = AdvertisedAddress(advertise or listen, port, database_hosts=database_hosts)

    @property
    def address(self) -> str:
        """The host:port at which other nodes currently call this one."""
        return str(self._own)

    async def start(self) -> None:
        """Serve, and log the address."""
        await self._server.start()
        if self._own.is_of_this_machine_alone:
            log.warning(
                "Only nodes on this machine can call this one; set ZAP_NODE_ADVERTISE to admit others.",
                address=self.address,
            )
        else:
            log.info("Other nodes can call this one.", address=self.address)

    async def stop(self, grace: float) -> None:
        """Refuse new calls and cancel unfinished ones after `grace` seconds."""
        await self._server.stop(grace)
        self._pictures.close()


class _NodeMethodsOnly(grpc.aio.ServerInterceptor):
    """Admits only the methods that nodes call. All others need a token and the callers' listener."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a method that nodes call, or None, which gRPC answers with UNIMPLEMENTED."""
        method = handler_call_details.method.removeprefix("/")
        if method in OWNER_METHODS or method.startswith("zap.node.v1."):
            return await continuation(handler_call_details)
        return None


@dataclass
class _PooledChannel:
    """A channel and its use count."""

    channel: grpc.aio.Channel
    calls: int = 0
    """Number of calls in progress."""
    idle_timer: asyncio.TimerHandle | None = None
    """Set while there are no calls."""


class NodeChannels:
    """Pools one channel per called node, until it has been idle for some time.

    Channels must not be kept forever: a channel to a stopped node would keep trying to connect, and each restart of a
    node at a new address would leave another one behind.
    """

    def __init__(self, certificate: NodeCertificate, *, idle: float = IDLE_CHANNEL_S) -> None:
        """Take `idle`, the seconds for which a channel without calls is kept."""
        self._credentials = certificate.for_calls()
        self._idle = idle
        self._pool: dict[str, _PooledChannel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return the number of open channels."""
        return len(self._pool)

    @contextmanager
    def to(self, address: str) -> Iterator[grpc.aio.Channel]:
        """Return a channel to this address that is usable while the context lasts."""
        pooled = self._pool.get(address)
        if pooled is None:
            channel = grpc.aio.secure_channel(address, self._credentials, options=_CHANNEL_OPTIONS)
            pooled = self._pool[address] = _PooledChannel(channel)
        if pooled.idle_timer is not None:
            pooled.idle_timer.cancel()
            pooled.idle_timer = None
        pooled.calls += 1
        try:
            yield pooled.channel
        finally:
            pooled.calls -= 1
            if not pooled.calls and self._pool.get(address) is pooled:
                pooled.idle_timer = asyncio.get_running_loop().call_later(self._idle, self._remove, address)

    async def close(self) -> None:
        """Close all channels, even those with calls in progress."""
        for address in list(self._pool):
            self._remove(address)
        if self._closing:
            await asyncio.wait(self._closing)

    def _remove(self, address: str) -> None:
        pooled = self._pool.pop(address)
        if pooled.idle_timer is not None:
            pooled.idle_timer.cancel()
        closing = asyncio.create_task(pooled.channel.close(), name=f"close-channel-{address}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
