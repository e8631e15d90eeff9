"""Runs the gRPC server for callers: its options and services, and how it starts, drains and stops."""

from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.api.grpc import events
from service.api.grpc.drainable_streams import DrainableStreams
from service.api.grpc.interceptors import CallInterceptor, RemoteCalls
from service.api.grpc.limits import MAX_CONNECTIONS, server_options
from service.api.grpc.qr_rendering import QrRenderer
from service.api.grpc.services import Core, add_session_services
from service.auth.authentication import Authentication
from service.telemetry.metrics import RpcMetrics
from zap.v1 import watch_pb2_grpc

_OPTIONS: Sequence[tuple[str, Any]] = (
    *server_options(MAX_CONNECTIONS),
    # A stream that waits for a scan is silent for a minute. Pings keep load balancers from closing it, and detect a
    # caller that vanished.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Detects a frozen caller whose kernel still answers. The default is a minute.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Callers may ping every five seconds, also without calls, before gRPC sends ENHANCE_YOUR_CALM.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # Callers reconnect automatically. Calls that are open on an aged connection run to their end.
    ("grpc.max_connection_idle_ms", 5 * 60_000),
    ("grpc.max_connection_age_ms", 60 * 60_000),
)

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address of a setting cannot be listened on."""


class Server:
    """Serves zap.v1, health and reflection on one address."""

    def __init__(
        self,
        core: Core,
        *,
        listen: str,
        token: str,
        metrics: RpcMetrics,
        remote_calls: RemoteCalls | None = None,
        write_timeout_s: float = events.WRITE_TIMEOUT_S,
    ) -> None:
        """Take `remote_calls`, which answers calls for other nodes; `write_timeout_s` is for streams of Watch."""
        self._listen = listen
        self._streams = DrainableStreams()
        self._pictures = QrRenderer()
        interceptor = CallInterceptor(Authentication(token), self._streams, metrics, remote_calls)
        self._server = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._names = self._add_services(core, metrics, write_timeout_s)

    async def start(self) -> int:
        """Listen, with health not serving. Return the port, which the system chooses if the address ends in :0."""
        await self.set_ready(False)
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise CannotListen(f"ZAP_LISTEN: cannot listen on {self._listen}: is the port taken?") from error
        await self._server.start()
        log.info("the gRPC server listens", address=self._listen, port=port)
        return port

    async def set_ready(self, ready: bool) -> None:  # noqa: FBT001 - a setter of one flag
        """Set what the health service reports."""
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def drain(self) -> None:
        """Set health to not serving permanently and end every stream with UNAVAILABLE. Calls are still served."""
        await self._health.enter_graceful_shutdown()
        self._streams.drain()

    async def stop(self, grace: float) -> None:
        """Drain, refuse new calls and cancel unfinished ones after `grace` seconds."""
        await self.drain()
        await self._server.stop(grace)
        self._pictures.close()

    def _add_services(self, core: Core, metrics: RpcMetrics, write_timeout_s: float) -> tuple[str, ...]:
        added = add_session_services(core, self._pictures, self._server)
        watch_pb2_grpc.add_EventServiceServicer_to_server(
            events.EventServicer(core.watch, metrics.unreadable, write_timeout_s), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*added, events.NAME)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        return names
