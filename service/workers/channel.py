"""The node's end of a session process's socket."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from google.protobuf.message import DecodeError

from service.wire import framing
from zap.worker.v1 import frames_pb2

_PIECE = 256 * 1024
_MOST_PIECES = 16
"""More than a socket holds: a process that writes on and on must not keep the event loop."""


class WorkerChannel(asyncio.Protocol):
    """Frames in, commands out. Neither direction ever blocks the event loop or grows without bound."""

    def __init__(
        self,
        connection: socket.socket,
        on_frame: Callable[[frames_pb2.Frame, int], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """`connection`: does not block. `on_frame`: takes a frame and its bytes. `log`: names the session."""
        self._connection = connection
        self._on_frame = on_frame
        self._log = log
        self._deframer = framing.Deframer()
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self._permit: frames_pb2.Permit | None = None
        self._confirm: frames_pb2.Confirm | None = None
        self.closed = asyncio.Event()
        """Set once nothing more comes in."""
        self.garbled = ""
        """Why what came in could not be understood; empty if it could."""
        self.is_held = False
        """Nothing is read for now: the node has not dealt with what came."""
        self._is_ending = False

    async def open(self) -> None:
        """Read and write from now on."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._connection)

    # --- out

    @property
    def accepts_commands(self) -> bool:
        """Whether a command would reach the socket, instead of a queue for a process that does not read."""
        return self._transport is not None and not self._is_full and not self.closed.is_set()

    def send(self, command: frames_pb2.Command) -> None:
        """Send a command. Raises framing.Garbled if it is too long."""
        if self._transport is not None:
            self._transport.write(framing.frame(command))

    def permit(self, deadline_ns: int) -> None:
        """Permit it to go on. If the socket is full only the last permit waits: it says all that the others did."""
        self._permit = frames_pb2.Permit(deadline_ns=deadline_ns)
        self._flush()

    def confirm(self, number: int) -> None:
        """Confirm frames up to a number; of several that wait only the last is sent."""
        self._confirm = frames_pb2.Confirm(number=number)
        self._flush()

    def _flush(self) -> None:
        if not self.accepts_commands:
            return
        if self._permit is not None:
            self.send(frames_pb2.Command(permit=self._permit))
        if self._confirm is not None:
            self.send(frames_pb2.Command(confirm=self._confirm))
        self._permit = self._confirm = None

    # --- in

    def hold(self) -> None:
        """Read nothing for now; the process waits once the socket is full."""
        if self._transport is not None and not self._is_ending:
            self.is_held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._transport is not None and self.is_held:
            self.is_held = False
            self._transport.resume_reading()

    async def read_to_end(self, timeout: float) -> None:
        """Wait until all that a dead process wrote has been read, for as long as there is more to read."""
        # No more than a socket holds.
        self._is_ending = True
        self.go_on()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.closed.wait()

    def close(self) -> None:
        """Close it; for the process that is the sign to end."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"not a stream: {transport!r}")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in what came; here and not in a task, so that no timer is served before it."""
        try:
            for body in self._deframer.feed(data):
                self._on_frame(_understood(body), len(body))
        except (framing.ProtocolError, DecodeError) as error:
            self._log.error("the session's process says what cannot be understood: %s", error)
            self.garbled = str(error)
            self.close()

    def pause_writing(self) -> None:
        """The process does not read."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_full = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more comes in or goes out."""
        if error is not None and not self.garbled:
            self._read_what_is_left()
        if self._deframer.pending:
            self._log.warning(
                "the session's process ended in the middle of a frame (%d bytes of it came)", self._deframer.pending
            )
        self.closed.set()

    def _read_what_is_left(self) -> None:
        """A transport that cannot write reads no more either; but what a process says last it says before it dies."""
        with contextlib.suppress(OSError):
            for _ in range(_MOST_PIECES):
                if self.garbled or not (data := self._connection.recv(_PIECE)):
                    break
                self.data_received(data)


def _understood(body: bytes) -> frames_pb2.Frame:
    """The frame, if it is no longer than its kind may be. Raises framing.Garbled, DecodeError."""
    frame = frames_pb2.Frame.FromString(body)
    kind = frame.WhichOneof("body")
    longest = framing.LONGEST_FRAME_BYTES if kind == "event" else framing.LONGEST_WITHOUT_EVENT
    if len(body) > longest:
        raise framing.ProtocolError(f"a frame of kind {kind} has {len(body)} bytes, more than {longest}")
    return frame
