"""Reads frames from a session process's socket, and writes commands to it."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from google.protobuf.message import DecodeError

from service.wire import framing
from zap.worker.v1 import frames_pb2

_READ_BYTES = 256 * 1024
_LONGEST_BYTES = {"event": framing.LONGEST_FRAME_BYTES, "reply": framing.LONGEST_REPLY_BYTES}
"""Bytes of the longest frame of a kind; LONGEST_WITHOUT_EVENT of all others."""
_FULL_POLL_S = 0.01
"""Seconds between two looks at a socket that is full, while a command with a file waits for it."""
_MAX_FINAL_READS = 16
"""More than a socket buffer holds: a process that keeps writing must not occupy the event loop."""


class WorkerChannel(asyncio.Protocol):
    """The node's end of the socket. Neither direction blocks the event loop or grows without bound."""

    def __init__(
        self,
        connection: socket.socket,
        on_frame: Callable[[frames_pb2.Frame, int], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """`connection` is non-blocking. `on_frame` takes a frame and its size in bytes; it may raise ProtocolError."""
        self._connection = connection
        self._on_frame = on_frame
        self._log = log
        self._deframer = framing.Deframer()
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self._latest: dict[tuple[str, str | None], frames_pb2.Command] = {}
        """Permits and confirmations that wait, by session and kind."""
        self.closed = asyncio.Event()
        """Set once the connection is closed and read."""
        self.protocol_error = ""
        """Why a frame could not be decoded; empty if all could."""
        self._pausing: set[str] = set()
        """The sessions of which the node has not processed enough."""
        self._is_draining = False

    async def open(self) -> None:
        """Attach the socket to the event loop."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._connection)

    # --- out

    @property
    def accepts_commands(self) -> bool:
        """Return whether a command would reach the socket, instead of waiting for a process that does not read."""
        return self._transport is not None and not self._is_full and not self.closed.is_set()

    def send(self, command: frames_pb2.Command) -> None:
        """Send a command. Raise framing.ProtocolError if it is too long."""
        if self._transport is not None:
            self._transport.write(framing.frame(command))

    async def send_with_file(self, command: frames_pb2.Command, descriptor: int) -> None:
        """Send a command with a file attached. Raise framing.ProtocolError if it is too long, OSError if it cannot go.

        A descriptor goes with the first byte of its command, so all that was written before must have left first.
        """
        data = framing.frame(command)
        while self._transport is not None and not self.closed.is_set():
            if not self._transport.get_write_buffer_size():
                with contextlib.suppress(BlockingIOError):
                    sent = framing.send_with_file(self._connection, data, descriptor)
                    self._transport.write(data[sent:])
                    return
            await asyncio.sleep(_FULL_POLL_S)
        raise ConnectionError("the session's process has ended")

    def send_latest(self, command: frames_pb2.Command) -> None:
        """Send a permit or a confirmation. While the socket is full, only a session's last one of each kind is kept."""
        self._latest[command.session_id, command.WhichOneof("command")] = command
        self._flush()

    def _flush(self) -> None:
        if self.accepts_commands:
            waiting, self._latest = self._latest, {}
            for command in waiting.values():
                self.send(command)

    # --- in

    @property
    def is_paused(self) -> bool:
        """Return whether reading is paused, because the node has not processed earlier frames."""
        return bool(self._pausing)

    def pause_reading(self, session_id: str) -> None:
        """Stop reading until this session and all others resume; the process blocks once the socket is full."""
        if self._transport is not None and not self._is_draining:
            self._pausing.add(session_id)
            self._transport.pause_reading()

    def resume_reading(self, session_id: str) -> None:
        """Resume reading, unless another session has paused it."""
        was_paused = self.is_paused
        self._pausing.discard(session_id)
        if self._transport is not None and was_paused and not self.is_paused:
            self._transport.resume_reading()

    async def read_to_end(self, timeout: float) -> None:
        """Read what a dead process wrote, for `timeout` seconds at most."""
        # Without backpressure: it is at most one socket buffer.
        self._is_draining = True
        for session_id in tuple(self._pausing):
            self.resume_reading(session_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.closed.wait()

    def close(self) -> None:
        """Close the connection, upon which the process exits."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"not a stream: {transport!r}")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Decode frames here and not in a task, so that they are handled before any timer."""
        try:
            for body in self._deframer.feed(data):
                self._on_frame(_parse_frame(body), len(body))
        except (framing.ProtocolError, DecodeError) as error:
            self._log.error("a frame of the session's process cannot be decoded; its socket is closed: %s", error)
            self.protocol_error = str(error)
            self.close()

    def pause_writing(self) -> None:
        """Stop sending, since the process does not read."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Send what is waiting."""
        self._is_full = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Read what is left after a write error, and set `closed`."""
        if error is not None and not self.protocol_error:
            self._read_rest()
        if self._deframer.pending:
            self._log.warning(
                "the session's process ended in the middle of a frame (%d bytes of it were read)",
                self._deframer.pending,
            )
        self.closed.set()

    def _read_rest(self) -> None:
        """Read the last frames of a dead process; the transport stops reading after a write error."""
        with contextlib.suppress(OSError):
            for _ in range(_MAX_FINAL_READS):
                if self.protocol_error or not (data := self._connection.recv(_READ_BYTES)):
                    break
                self.data_received(data)


def _parse_frame(body: bytes) -> frames_pb2.Frame:
    """Parse a frame and check the size limit of its kind. Raise framing.ProtocolError or DecodeError."""
    frame = frames_pb2.Frame.FromString(body)
    kind = frame.WhichOneof("body")
    longest = _LONGEST_BYTES.get(kind or "", framing.LONGEST_WITHOUT_EVENT)
    if len(body) > longest:
        raise framing.ProtocolError(f"a frame of kind {kind} has {len(body)} bytes, more than {longest}")
    return frame
