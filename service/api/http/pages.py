"""Serves the pages that probes and Prometheus read: /livez, /readyz, /metrics."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import cast

import h11
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.domain.addresses import split_address

Readiness = Callable[[], Mapping[str, str]]
"""Returns the reasons why this node is not ready: a sentence by name. Empty when the node is ready."""

MAX_CONNECTIONS = 100
"""Concurrent connections. Further ones are closed at once, to leave file descriptors for the rest of the node."""
IDLE_TIMEOUT_S = 15.0
"""Seconds for a whole request to arrive; and, after an answer, for the next request to begin."""
_JSON = "application/json; charset=utf-8"


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
        self._max_connections = connections
        self._readiness = readiness
        self._registry = registry
        self._server: asyncio.Server | None = None
        self.idle_timeout_s = idle
        self.connections: set[_Connection] = set()

    async def start(self) -> int:
        """Listen and return the port, which the system chooses if the address ends in :0."""
        host, port = split_address(self._listen)
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), host, port)
        except OSError as error:
            raise CannotServePages(f"ZAP_HTTP_LISTEN: cannot listen on {self._listen}: {error.strerror}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self.connections):
            connection.close()

    @property
    def is_full(self) -> bool:
        """Return whether a new connection is one too many."""
        return len(self.connections) >= self._max_connections

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Return the status, the content type and the body of a page."""
        match path.partition("?")[0]:
            case "/livez":
                # Always: a restart helps only if the event loop does not answer.
                return 200, _JSON, json.dumps({"status": "alive"}).encode()
            case "/readyz":
                reasons = dict(self._readiness())
                status = "not ready" if reasons else "ready"
                return 503 if reasons else 200, _JSON, json.dumps({"status": status, "reasons": reasons}).encode()
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case _:
                return 404, _JSON, json.dumps({"status": "not found"}).encode()


class _Connection(asyncio.Protocol):
    """Answers the requests of one client, one after the other."""

    def __init__(self, pages: HealthAndMetricsServer) -> None:
        self._pages = pages
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or refuse the connection."""
        self._transport = cast("asyncio.Transport", transport)
        if self._pages.is_full:
            self._transport.abort()
            return
        self._pages.connections.add(self)
        self._limit_wait()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection."""
        self._pages.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer each request that has arrived whole."""
        self._http.receive_data(data)
        try:
            while not self._transport.is_closing():
                match self._http.next_event():
                    case h11.Request() as request:
                        self._request = request
                    case h11.EndOfMessage():
                        self._answer()
                    case h11.ConnectionClosed():
                        self.close()
                    case h11.NEED_DATA | h11.PAUSED:
                        return
        except h11.RemoteProtocolError as error:
            self._send(error.error_status_hint, _JSON, json.dumps({"status": "bad request"}).encode())
            self.close()

    def close(self) -> None:
        """Close the connection once what was written has been sent."""
        self._transport.close()

    def _limit_wait(self) -> None:
        """Close the connection if the next request has not arrived whole in time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._pages.idle_timeout_s, self._transport.abort)

    def _answer(self) -> None:
        request = cast("h11.Request", self._request)
        if request.method == b"GET":
            self._send(*self._pages.page(request.target.decode("latin-1")))
        else:
            self._send(405, _JSON, json.dumps({"status": "only GET"}).encode())
        if self._http.our_state is h11.MUST_CLOSE:
            self.close()
        else:
            self._http.start_next_cycle()
            self._limit_wait()

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        parts = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        self._transport.write(b"".join(self._http.send(part) or b"" for part in parts))
