"""A caller that speaks HTTP/2 by itself, since gRPC's own clients do not leave bodies unfinished or reset in masses."""

import asyncio
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW_SIZE = 0x4
_LARGEST_FRAME = 16 * 1024
_FIRST_WINDOW = 65_535
_CANCEL = struct.pack(">I", 0x8)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def request_headers(stream: int, method: str, *headers: tuple[str, str]) -> bytes:
    """The frame that opens a call. Each header is a literal that is not indexed, shorter than 127 bytes."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *headers,
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    return frame(_HEADERS, _END_HEADERS, stream, block)


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    return bytes((len(data),)) + data


def begin_message(length: int, sent: bytes = b"") -> bytes:
    """How a gRPC message begins that has so many bytes, of which some follow."""
    return b"\x00" + struct.pack(">I", length) + sent


@dataclass
class Stream:
    """One call."""

    number: int
    window: int
    taken: int = 0
    """Bytes that the server has taken."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The server has ended it, or reset it."""


class Connection:
    """A connection; a context manager. It keeps to the server's flow control."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._window = _FIRST_WINDOW
        self._stream_window = _FIRST_WINDOW
        self._may_write = asyncio.Condition()
        self._next = 1
        self.streams: dict[int, Stream] = {}
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        self._writer.write(_PREFACE + frame(_SETTINGS, 0, 0))
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.cancel()
        self._writer.transport.abort()

    def open(self, method: str, *headers: tuple[str, str]) -> Stream:
        """Begin a call."""
        stream = Stream(self._next, self._stream_window)
        self._next += 2
        self.streams[stream.number] = stream
        self._writer.write(request_headers(stream.number, method, *headers))
        return stream

    async def send(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        """Send as much of the body as the server takes; returns when all is sent, or the stream has ended."""
        while data:
            async with self._may_write:
                await self._may_write.wait_for(
                    lambda: (self._window > 0 and stream.window > 0) or stream.ended.is_set() or self.closed.is_set()
                )
            if stream.ended.is_set() or self.closed.is_set():
                return
            size = min(len(data), _LARGEST_FRAME, self._window, stream.window)
            part, data = data[:size], data[size:]
            self._window -= size
            stream.window -= size
            stream.taken += size
            self._writer.write(frame(_DATA, _END_STREAM if end and not data else 0, stream.number, part))
            await self._writer.drain()

    async def open_and_reset(self, method: str, data: bytes, count: int, *headers: tuple[str, str]) -> None:
        """Open so many calls, and reset each at once."""
        parts = []
        for _ in range(count):
            number, self._next = self._next, self._next + 2
            parts.append(request_headers(number, method, *headers) + frame(_DATA, 0, number, data))
            parts.append(frame(_RST_STREAM, 0, number, _CANCEL))
        self._writer.write(b"".join(parts))
        await self._writer.drain()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                await self._take(head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF, payload)
        except (OSError, EOFError):
            self.closed.set()
            async with self._may_write:
                self._may_write.notify_all()

    async def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == _INITIAL_WINDOW_SIZE:
                    for each in self.streams.values():
                        each.window += value - self._stream_window
                    self._stream_window = value
            self._writer.write(frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._writer.write(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream is None:
            self._window += int.from_bytes(payload) if not number else 0
        elif kind == _WINDOW_UPDATE and stream is not None:
            stream.window += int.from_bytes(payload)
        elif stream is not None and (kind == _RST_STREAM or (kind in (_HEADERS, _DATA) and flags & _END_STREAM)):
            stream.ended.set()
        else:
            return
        async with self._may_write:
            self._may_write.notify_all()
