"""A proxy between a session and the simulated WhatsApp, that can misbehave in every way a proxy can."""

import asyncio
import contextlib
import enum
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from simulator.certificates import CertificateAuthority


class Manner(enum.Enum):
    """What becomes of a connection; of new ones only, but for ABSENT."""

    PASS = "all passes, as through a proxy that is well"
    ABSENT = "nobody listens, and what was open is reset"
    PASSWORD = "CONNECT is answered with 407"
    FORBIDDEN = "CONNECT is answered with 403"
    SILENT = "CONNECT is never answered"
    GARBAGE = "CONNECT succeeds, then comes what is no TLS"
    UNTRUSTED = "CONNECT succeeds, then comes a certificate that nobody trusts"
    EXPIRED = "CONNECT succeeds, then comes a certificate that was good once"
    CUT = "CONNECT succeeds, then the connection is closed"
    BAD_GATEWAY = "CONNECT and TLS succeed, and the WebSocket is answered with 502"
    MUTE = "CONNECT and TLS succeed, and the WebSocket is never answered"


_REFUSALS = {Manner.PASSWORD: "407 Proxy Authentication Required", Manner.FORBIDDEN: "403 Forbidden"}


class Proxy:
    """`async with Proxy(simulator.addresses.proxy, authority) as proxy:` listens on a port of its own."""

    def __init__(self, onward: str, authority: CertificateAuthority) -> None:
        """`onward`: URL of the proxy to pass on to. `authority`: one that clients trust."""
        self._onward = urlsplit(onward)
        self._contexts = {
            Manner.UNTRUSTED: CertificateAuthority().server_context(),
            Manner.EXPIRED: authority.server_context(is_expired=True),
            Manner.BAD_GATEWAY: authority.server_context(),
            Manner.MUTE: authority.server_context(),
        }
        self._manner = Manner.PASS
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.dials = 0
        """Connections that came in so far."""

    async def __aenter__(self) -> Self:
        await self.behave(Manner.PASS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.behave(Manner.ABSENT)

    @property
    def url(self) -> str:
        """For a session's proxy_url."""
        return f"http://127.0.0.1:{self._port}"

    async def behave(self, manner: Manner) -> None:
        """From now on."""
        self._manner = manner
        if manner is Manner.ABSENT:
            if self._server is not None:
                self._server.close()
                self._server = None
            await self.drop()
        elif self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def drop(self) -> None:
        """Reset what is open."""
        tasks = list(self._open)
        for task, writer in self._open.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        self.dials += 1
        try:
            await self._serve(reader, writer)
        # Cancelled by `drop`, as the last thing that this task does; asyncio would complain of it.
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            del self._open[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        manner = self._manner
        if manner is Manner.PASS:
            await self._pass_on(reader, writer)
            return
        await reader.readuntil(b"\r\n\r\n")
        if manner is Manner.SILENT:
            await reader.read()
            return
        status = _REFUSALS.get(manner, "200 Connection established")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        if manner is Manner.GARBAGE:
            await reader.read(1)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n<html>Please accept our terms</html>")
            await writer.drain()
        elif manner in self._contexts:
            await self._answer_behind_tls(manner, reader, writer)

    async def _answer_behind_tls(
        self, manner: Manner, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await writer.start_tls(self._contexts[manner], ssl_handshake_timeout=10)
        await reader.readuntil(b"\r\n\r\n")
        if manner is Manner.MUTE:
            await reader.read()
            return
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._onward.hostname, self._onward.port)
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            there_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
