"""The pages that probes and Prometheus read: /livez, /readyz, /metrics."""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.domain.addresses import split_address

Readiness = Callable[[], Mapping[str, str]]
"""What keeps this node from being ready: a name and a sentence for each; empty when it is ready."""


class CannotServePages(Exception):
    """ZAP_HTTP_LISTEN cannot be listened on."""


class Pages:
    """Serves the pages on one address."""

    def __init__(self, listen: str, readiness: Readiness, registry: CollectorRegistry) -> None:
        self._listen = listen
        self._readiness = readiness
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; the port, which the system chose if the address ends in :0."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host, port = split_address(self._listen)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise CannotServePages(f"ZAP_HTTP_LISTEN: cannot listen on {self._listen}: {error.strerror}") from error
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _livez(self, _: web.Request) -> web.Response:
        """The event loop answers: that is all that a restart could mend."""
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = dict(self._readiness())
        status = "not ready" if reasons else "ready"
        return web.json_response({"status": status, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
