"""Fetches a file from WhatsApp's media hosts by HTTP/1.1, as a stream with deadlines.

The host is fixed, since what names a file in a message was written by a stranger. A redirect is followed to other hosts
of whatsapp.net only.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from service.domain.media import is_path_at_host
from service.media import tunnel

HOST = "mmg.whatsapp.net"
_ORIGIN = "https://web.whatsapp.com"
_DOMAIN = ".whatsapp.net"
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchFailed(Exception):
    """The host was not reached, or broke off; the message says why."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds for the steps of a fetch."""

    connect: float = 15.0
    read: float = 20.0
    """Longest wait for the next bytes."""


class FetchedBody:
    """The answer of a host: its status, and its body to read once."""

    def __init__(
        self, connection: tunnel.HostConnection, http: h11.Connection, answer: h11.Response, read: float
    ) -> None:
        self._connection = connection
        self._http = http
        self._read_timeout = read
        self._answer = answer
        self.status = answer.status_code

    @property
    def length(self) -> int | None:
        """The Content-Length, if there is one."""
        value = self.header(b"content-length")
        return int(value) if value.isdigit() else None

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, empty if there is none."""
        return next((bytes(value) for key, value in self._answer.headers if key == name), b"")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body. Raise FetchFailed if the host breaks off."""
        while True:
            event = await _next_event(self._connection, self._http, self._read_timeout)
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                yield bytes(event.data)


class MediaHttpClient:
    """Opens one connection for each fetch."""

    def __init__(self, context: ssl.SSLContext | None = None, timeouts: Timeouts | None = None) -> None:
        """Trust the authorities of SSL_CERT_FILE or of the system, unless `context` says otherwise."""
        self._context = context or ssl.create_default_context()
        self._timeouts = timeouts or Timeouts()

    @asynccontextmanager
    async def get(self, target: str, proxy_url: str) -> AsyncIterator[FetchedBody]:
        """Fetch a path with its query from the media host, through the session's proxy. Raise FetchFailed."""
        host = HOST
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._ask(host, target, proxy_url) as body:
                if body.status not in _REDIRECTS:
                    yield body
                    return
                host, target = _redirected(host, target, body.header(b"location"))
        raise FetchFailed(f"more than {_MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def _ask(self, host: str, target: str, proxy_url: str) -> AsyncIterator[FetchedBody]:
        headers = [("Host", host), ("Origin", _ORIGIN), ("Referer", f"{_ORIGIN}/"), ("Accept-Encoding", "identity")]
        http = h11.Connection(h11.CLIENT)
        request = http.send(h11.Request(method="GET", target=target, headers=headers))
        end = http.send(h11.EndOfMessage())
        proxy = tunnel.proxy_for(host, proxy_url)
        try:
            async with tunnel.connect(host, proxy, self._context, self._timeouts.connect) as connection:
                connection.writer.write((request or b"") + (end or b""))
                answer = await _answer(connection, http, self._timeouts.read)
                yield FetchedBody(connection, http, answer, self._timeouts.read)
        except tunnel.ConnectFailed as error:
            raise FetchFailed(str(error)) from error


async def _answer(connection: tunnel.HostConnection, http: h11.Connection, timeout: float) -> h11.Response:
    while True:
        event = await _next_event(connection, http, timeout)
        if isinstance(event, h11.Response):
            return event
        if not isinstance(event, h11.InformationalResponse):
            raise FetchFailed("the host did not answer by HTTP")


async def _next_event(connection: tunnel.HostConnection, http: h11.Connection, timeout: float) -> h11.Event:
    """Return the next event that is in full. Raise FetchFailed."""
    try:
        while True:
            event = http.next_event()
            if isinstance(event, h11.Event):
                return event
            if event is not h11.NEED_DATA:
                raise FetchFailed("the host ended the answer early")
            async with asyncio.timeout(timeout):
                http.receive_data(await connection.reader.read(tunnel.BUFFER_BYTES))
    except h11.RemoteProtocolError as error:
        raise FetchFailed(f"the host broke off, or does not speak HTTP: {error}") from error
    except TimeoutError as error:
        raise FetchFailed(f"the host sent nothing for {timeout:g} s") from error
    except OSError as error:
        raise FetchFailed(f"{type(error).__name__}: {error}") from error


def _redirected(host: str, target: str, location: bytes) -> tuple[str, str]:
    """Return host and target of a redirect. Raise FetchFailed unless it stays within whatsapp.net."""
    try:
        parts = urlsplit(location.decode("ascii"))
        port = parts.port
    except ValueError as error:
        raise FetchFailed("the host redirects to an address that is none") from error
    new_host = parts.hostname or host
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    is_allowed = parts.scheme in ("", "https") and port in (None, tunnel.PORT) and new_host.endswith(_DOMAIN)
    if not is_allowed or not is_path_at_host(path):
        raise FetchFailed("the host redirects to another host than those of WhatsApp")
    return new_host, path
