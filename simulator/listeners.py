"""Accepts clients on a plain WebSocket port and on a CONNECT proxy that answers as WhatsApp over TLS."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from enum import StrEnum

from simulator.transport import FrameStream

log = logging.getLogger(__name__)

_BACKLOG = 1024
_REQUEST_DEADLINE = 20.0
_IN_TOUCH = 3
"""Seconds without TCP acknowledgements after which a connection is closed. This detects a client whose machine left
the network. The kernel of a client that hangs or is stopped still acknowledges."""


class Refusal(StrEnum):
    """The ways to refuse new connections."""

    ABORT = "abort"  #: accepted, then reset
    HTTP = "http"  #: CONNECT, or the WebSocket upgrade, is answered 502
    TLS = "tls"  #: CONNECT succeeds, then the TLS handshake is cut (on the plain port: reset)


#: Serves one client from its first frame to its end.
Serve = Callable[[FrameStream], Awaitable[None]]
#: Whether, and how, the next connection is refused.
NextRefusal = Callable[[], Refusal | None]


class Listener:
    """A port. Subclasses handle the steps between the TCP connection and the WebSocket."""

    def __init__(self, serve: Serve, next_refusal: NextRefusal) -> None:
        self._serve = serve
        self._next_refusal = next_refusal
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Listen, and set `address`."""
        self._server = await asyncio.start_server(self._accept, host, port, backlog=_BACKLOG)
        for listening in self._server.sockets:
            # Accepted connections inherit these options.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _IN_TOUCH - 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _IN_TOUCH)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{bound_host}:{bound_port}"

    async def stop(self) -> None:
        """Stop listening. The server ends the connections."""
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            caller = await self._prepare(reader, writer, self._next_refusal())
            if caller is not None:
                await self._serve(FrameStream(reader, writer, caller))
        except (OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("connection ended before its first frame: %r", error)
        finally:
            writer.close()

    async def _prepare(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refusal | None
    ) -> str | None:
        """Advance the stream to the WebSocket upgrade. Return the caller's name, or None if it was refused."""
        raise NotImplementedError


class PlainListener(Listener):
    """A WebSocket port without TLS, for a client whose URL is patched."""

    async def _prepare(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refusal | None
    ) -> str | None:
        if refusal is Refusal.HTTP:
            await _read_request(reader)
            await _answer(writer, "502 Bad Gateway")
        elif refusal is not None:
            writer.transport.abort()
        return "" if refusal is None else None


class ProxyListener(Listener):
    """A CONNECT proxy that terminates TLS, for a client whose URL is not patched."""

    def __init__(self, serve: Serve, next_refusal: NextRefusal, tls: ssl.SSLContext) -> None:
        super().__init__(serve, next_refusal)
        self._tls = tls

    async def _prepare(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refusal | None
    ) -> str | None:
        if refusal is Refusal.ABORT:
            writer.transport.abort()
            return None
        method, target, caller = await _read_request(reader)
        if method != "CONNECT":
            await _answer(writer, "405 Method Not Allowed")
            return None
        if refusal is Refusal.HTTP or not _is_whatsapp(target):
            await _answer(writer, "502 Bad Gateway")
            return None
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        if refusal is Refusal.TLS:
            writer.transport.abort()
            return None
        await writer.start_tls(self._tls, ssl_handshake_timeout=_REQUEST_DEADLINE)
        return caller


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, str]:
    """Return the method, the target, and the user name of the proxy authentication."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_DEADLINE)).decode("latin-1")
    method, _, rest = head.partition(" ")
    credentials = re.search(r"(?im)^Proxy-Authorization: Basic (\S+)", head)
    user = base64.b64decode(credentials[1]).decode("latin-1").partition(":")[0] if credentials else ""
    return method, rest.partition(" ")[0], user


async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()


def _is_whatsapp(target: str) -> bool:
    host = target.rpartition(":")[0]
    return host.endswith((".whatsapp.com", ".whatsapp.net"))
