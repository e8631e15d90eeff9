"""Serves the pages that probes and Prometheus read: /livez, /readyz, /metrics."""

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.domain.addresses import split_address

Readiness = Callable[[], Mapping[str, str]]
"""Returns the reasons why this node is not ready: a sentence by name. Empty when the node is ready."""

MAX_CONNECTIONS = 100
"""Concurrent connections. Further ones are closed at once, to leave file descriptors for the rest of the node."""
IDLE_TIMEOUT_S = 15.0
"""Seconds for a whole request to arrive; and, after an answer, for the next request to begin."""


class CannotServePages(Exception):
    """The address in ZAP_HTTP_LISTEN cannot be listened on."""


class HealthAndMetricsServer:
    """Serves the pages on one address."""

    def __init__(
        self,
        listen: str,
        readiness: Readiness,
        registry: CollectorRegistry,
        *,
        connections: int = MAX_CONNECTIONS,
        idle: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._listen = listen
        self._connections = connections
        self._idle = idle
        self._readiness = readiness
        self._registry = registry
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen and return the port, which the system chooses if the address ends in :0."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        # aiohttp's keep-alive timeout also limits the arrival of a request, from a connection's first byte on.
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=self._idle, lingering_time=1.0)
        await runner.setup()
        host, port = split_address(self._listen)
        try:
            server = await asyncio.get_running_loop().create_server(lambda: self._connect(runner), host, port)
        except OSError as error:
            await runner.cleanup()
            raise CannotServePages(f"ZAP_HTTP_LISTEN: cannot listen on {self._listen}: {error.strerror}") from error
        self._runner, self._server = runner, server
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _connect(self, runner: web.AppRunner) -> asyncio.BaseProtocol:
        serving = runner.server
        if serving is None or len(serving.connections) >= self._connections:
            return _Refusal()
        return serving()

    async def _livez(self, _: web.Request) -> web.Response:
        """Answer always: a restart helps only if the event loop does not answer."""
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = dict(self._readiness())
        status = "not ready" if reasons else "ready"
        return web.json_response({"status": status, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).abort()
