"""Reads WhatsApp's length-prefixed frames from the messages of a WebSocket over a TCP stream, and writes them."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import ssl
from collections.abc import AsyncIterator

import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Request

from simulator.noise import PROLOGUE

_READ_SIZE = 16 * 1024
_LARGEST_FRAME = 16 * 1024 * 1024
#: Maximum bytes queued for a client that does not read. Beyond this, its connection is cut.
_LARGEST_BACKLOG = 32 * 1024 * 1024

#: asyncio reserves 256 KiB for each TLS connection. There are thousands of connections, which need far less.
asyncio.sslproto.SSLProtocol.max_size = 16 * 1024


class ConnectionEnded(Exception):
    """The connection was closed or cut, or the peer is not a WhatsApp client."""


class FrameStream:
    """A client's frames over a WebSocket. Sending never waits and keeps the order of the calls."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: str = "") -> None:
        """Take `caller`, the user name that the client gave the proxy; empty if it gave none."""
        self.caller = caller
        self._reader = reader
        self._writer = writer
        self._websocket = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        self._frames = self._read_frames()

    @property
    def is_over(self) -> bool:
        """Return whether this side knows that nothing can be sent or received any more."""
        return self._writer.transport.is_closing() or self._reader.at_eof()

    async def receive(self) -> bytes:
        """Return the next frame."""
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            raise ConnectionEnded from None

    def send(self, frame: bytes) -> None:
        """Send a frame, unless the connection is over."""
        self._write(BytesMessage(len(frame).to_bytes(3, "big") + frame))

    def close(self) -> None:
        """Close the connection with a WebSocket close."""
        if not self.is_over:
            self._write(CloseConnection(code=1000))
        self._writer.close()

    def abort(self) -> None:
        """Reset the connection, without a WebSocket close."""
        self._writer.transport.abort()

    def _write(self, event: Event) -> None:
        transport = self._writer.transport
        if transport.is_closing():
            return
        try:
            transport.write(self._websocket.send(event))
        except wsproto.utilities.LocalProtocolError:
            transport.abort()
            return
        if transport.get_write_buffer_size() > _LARGEST_BACKLOG:
            transport.abort()

    async def _read_frames(self) -> AsyncIterator[bytes]:
        buffer = bytearray()
        is_first = True
        async for chunk in self._read_messages():
            buffer += chunk
            if is_first:
                if len(buffer) < len(PROLOGUE):
                    continue
                if not buffer.startswith(PROLOGUE):
                    raise ConnectionEnded(f"unexpected start {bytes(buffer[:4])!r}")
                del buffer[: len(PROLOGUE)]
                is_first = False
            while len(buffer) >= 3 and len(buffer) >= (end := 3 + int.from_bytes(buffer[:3], "big")):
                yield bytes(buffer[3:end])
                del buffer[:end]
            if len(buffer) > _LARGEST_FRAME + 3:
                raise ConnectionEnded("frame is too large")

    async def _read_messages(self) -> AsyncIterator[bytes]:
        while True:
            try:
                data = await self._reader.read(_READ_SIZE)
            except (OSError, ssl.SSLError) as error:
                raise ConnectionEnded(str(error)) from error
            if not data:
                return
            try:
                self._websocket.receive_data(data)
                events = list(self._websocket.events())
            except wsproto.utilities.RemoteProtocolError as error:
                raise ConnectionEnded(f"not a WebSocket: {error}") from error
            for event in events:
                if isinstance(event, Request):
                    self._write(AcceptConnection())
                elif isinstance(event, BytesMessage):
                    yield bytes(event.data)
                elif isinstance(event, Ping):
                    self._write(event.response())
                elif isinstance(event, CloseConnection):
                    self._write(event.response())
                    return
