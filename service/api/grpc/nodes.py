"""Between nodes: a listener of its own, where nobody but nodes is let in, and the channels to those of others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import structlog

from service.api.grpc import messages, sessions
from service.api.grpc.advertised_address import AdvertisedAddress
from service.api.grpc.context import Handler
from service.api.grpc.drainable_streams import DrainableStreams
from service.api.grpc.forwarding import OWNER_METHODS, OwnershipGuard
from service.api.grpc.interceptors import CallInterceptor
from service.api.grpc.limits import NODE_CONNECTIONS, server_options
from service.api.grpc.node_service import NodeServicer, Taker
from service.api.grpc.qr_rendering import QrRenderer
from service.api.grpc.server import CannotListen, Core
from service.auth.authentication import Authentication
from service.auth.node_certificates import NAME, NodeCertificate
from service.telemetry.metrics import RpcMetrics
from zap.node.v1 import node_pb2_grpc
from zap.v1 import message_pb2_grpc, session_pb2_grpc

log = structlog.get_logger(__name__)

IDLE_CHANNEL_S = 60.0
"""Seconds for which a channel is kept that nobody calls on."""

_SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *server_options(NODE_CONNECTIONS),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    # Channels ping all the time, to notice a node that is frozen.
    ("grpc.http2.max_ping_strikes", 0),
)
_CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    # The certificate is for a node, wherever that is.
    ("grpc.ssl_target_name_override", NAME),
    ("grpc.max_receive_message_length", -1),
    # A node that is frozen answers nobody, and its kernel takes what is sent all the same: the caller must not wait
    # until its deadline.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # It is also what a connection may take: with less, a link of 80 ms is none.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A proxy of the environment is for WhatsApp.
    ("grpc.enable_http_proxy", 0),
)


class NodeListener:
    """Serves zap.v1 to other nodes."""

    def __init__(
        self,
        core: Core,
        owned: OwnershipGuard,
        taker: Taker,
        incarnation: UUID,
        certificate: NodeCertificate,
        *,
        listen: str,
        advertise: str,
        database_hosts: Sequence[str],
        metrics: RpcMetrics,
    ) -> None:
        """Listens at once, and serves from `start` on. Raises CannotListen.

        `database_hosts`: by which a node that listens everywhere finds out what others call it.
        """
        self._pictures = QrRenderer()
        # Who it is was settled when the connection was made.
        interceptor = CallInterceptor(Authentication(""), DrainableStreams(), metrics, owned)
        self._server = grpc.aio.server(interceptors=[_ForNodes(), interceptor], options=_SERVER_OPTIONS)
        session_pb2_grpc.add_SessionServiceServicer_to_server(
            sessions.SessionServicer(core.sessions, self._pictures), self._server
        )
        message_pb2_grpc.add_MessageServiceServicer_to_server(messages.MessageServicer(core.sending), self._server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(NodeServicer(taker, incarnation), self._server)
        try:
            port = self._server.add_secure_port(listen, certificate.for_server())
        except RuntimeError as error:
            raise CannotListen(f"ZAP_NODE_LISTEN: cannot listen on {listen}: is the port taken?") from error
        self._own = AdvertisedAddress(advertise or listen, port, database_hosts=database_hosts)

    @property
    def address(self) -> str:
        """At which other nodes call this one, as of now."""
        return str(self._own)

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        if self._own.is_of_this_machine_alone:
            log.warning(
                "Only nodes on this machine can call this one; else set ZAP_NODE_ADVERTISE.", address=self.address
            )
        else:
            log.info("Other nodes can call this one.", address=self.address)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and cancel those that are not done after `grace` seconds."""
        await self._server.stop(grace)
        self._pictures.close()


class _ForNodes(grpc.aio.ServerInterceptor):
    """Serves what nodes ask of each other; for all else there is the other listener, which asks for a token."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of a method, if nodes ask for it; None is answered with UNIMPLEMENTED."""
        method = handler_call_details.method.removeprefix("/")
        if method in OWNER_METHODS or method.startswith("zap.node.v1."):
            return await continuation(handler_call_details)
        return None


@dataclass
class _Kept:
    """A channel, and whether it is of use."""

    channel: grpc.aio.Channel
    calls: int = 0
    """Under way on it."""
    hang_up: asyncio.TimerHandle | None = None
    """Set while there are none."""


class NodeChannels:
    """A channel to each node that is called, and for a while afterwards.

    Not for ever: one to a node that is gone would go on trying to connect, and every restart of a node that is called
    somewhere else would leave another one.
    """

    def __init__(self, certificate: NodeCertificate, *, idle: float = IDLE_CHANNEL_S) -> None:
        """`idle`: seconds for which one is kept that nobody calls on."""
        self._credentials = certificate.for_calls()
        self._idle = idle
        self._kept: dict[str, _Kept] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    @contextmanager
    def to(self, address: str) -> Iterator[grpc.aio.Channel]:
        """One to this address, to call on while the context lasts."""
        kept = self._kept.get(address)
        if kept is None:
            channel = grpc.aio.secure_channel(address, self._credentials, options=_CHANNEL_OPTIONS)
            kept = self._kept[address] = _Kept(channel)
        if kept.hang_up is not None:
            kept.hang_up.cancel()
            kept.hang_up = None
        kept.calls += 1
        try:
            yield kept.channel
        finally:
            kept.calls -= 1
            if not kept.calls and self._kept.get(address) is kept:
                kept.hang_up = asyncio.get_running_loop().call_later(self._idle, self._hang_up, address)

    async def close(self) -> None:
        """Hang up, whoever still calls."""
        for address in list(self._kept):
            self._hang_up(address)
        if self._closing:
            await asyncio.wait(self._closing)

    def _hang_up(self, address: str) -> None:
        kept = self._kept.pop(address)
        if kept.hang_up is not None:
            kept.hang_up.cancel()
        closing = asyncio.create_task(kept.channel.close(), name=f"hang-up-{address}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
