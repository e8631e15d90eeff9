"""What this process reports to its node: frames, in order, from any thread."""

import contextlib
import datetime
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from service.wire import framing
from zap.worker.v1 import frames_pb2

_LAST_FRAME_TIMEOUT_S = 2
_NODE_IS_SLOW_AFTER_S = 0.1
_LOCK_TIMEOUT_S = 0.05
"""How long another frame may take to be written before a frame that can be lost gives way to it."""


def timestamp(moment: datetime.datetime | None = None) -> Timestamp:
    """Return a moment, by default now, as it goes into frames."""
    stamp = Timestamp()
    stamp.FromDatetime(moment or datetime.datetime.now(datetime.UTC))
    return stamp


class FrameWriter:
    """The writing end of the socket.

    A frame that must not be lost waits while the socket is full, which holds the library's callback. A frame that can
    be lost (progress, log lines) is dropped instead.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._is_open = True
        self._commits = threading.Condition()
        self._number = self._committed = 0
        self._counting = threading.Lock()
        self._waiting = 0
        self._has_waited = False

    def send(self, frame: frames_pb2.Frame) -> None:
        """Send a frame; wait while the socket is full."""
        self._stamp(frame)
        with self._wait_for_node(), self._lock:
            self._write(framing.frame(frame))

    def commit(self, frames: Iterable[frames_pb2.Frame], wait: Callable[[], None] = lambda: None) -> bool:
        """Send the frames of one event, and return when the node has committed all of them to the event log.

        Return whether there were any. `wait` is called once they are made, and returns when they may be sent.

        Called by one thread at a time. If the node is gone it never returns: the event must not count as handled, and
        the process is about to end.
        """
        # All of them are made before the first one is sent.
        made = tuple(frames)
        with self._wait_for_node():
            wait()
            for frame in made:
                self._stamp(frame)
                self._number += 1
                frame.number = self._number
                with self._lock:
                    self._write(framing.frame(frame))
            with self._commits:
                self._commits.wait_for(lambda: self._committed >= self._number)
        return bool(made)

    def committed(self, number: int) -> None:
        """Take note that the node has committed every frame up to this number."""
        with self._commits:
            self._committed = max(self._committed, number)
            self._commits.notify_all()

    def offer(self, frame: frames_pb2.Frame) -> bool:
        """Send a frame if that is possible without waiting for the node; return whether it was."""
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_S):
            return False
        try:
            if not self._has_room():
                return False
            self._stamp(frame)
            self._write(framing.frame(frame))
            return self._is_open
        finally:
            self._lock.release()

    def send_last(self, frame: frames_pb2.Frame, and_then: Callable[[], None]) -> None:
        """Send a frame, or fail to within a bound, and nothing after it."""
        self._stamp(frame)
        has_lock = self._lock.acquire(timeout=_LAST_FRAME_TIMEOUT_S)
        try:
            if has_lock:
                limit = struct.pack("ll", _LAST_FRAME_TIMEOUT_S, 0)
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
                self._write(framing.frame(frame))
        finally:
            # The lock is kept: no frame follows the last one.
            and_then()

    def waited_for_node(self) -> bool:
        """Return whether a thread waits for the node, or has waited since this was last asked."""
        with self._counting:
            waited = self._has_waited or self._waiting > 0
            self._has_waited = False
        return waited

    @contextlib.contextmanager
    def _wait_for_node(self) -> Iterator[None]:
        began = time.monotonic()
        with self._counting:
            self._waiting += 1
        try:
            yield
        finally:
            with self._counting:
                self._waiting -= 1
                # To have sent something is not to have waited.
                self._has_waited |= time.monotonic() - began > _NODE_IS_SLOW_AFTER_S

    @staticmethod
    def _stamp(frame: frames_pb2.Frame) -> None:
        if not frame.HasField("time"):
            frame.time.CopyFrom(timestamp())

    def _has_room(self) -> bool:
        poll = select.poll()
        poll.register(self._connection, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))

    def _write(self, data: bytes) -> None:
        if not self._is_open:
            return
        try:
            self._connection.sendall(data)
        except OSError:
            # The node is gone, or never reads again: half a frame must not be followed by another. The reader of
            # commands sees the same and ends this process.
            self._is_open = False
