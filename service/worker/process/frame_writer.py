"""Writes this process's frames to its node, in order, from any thread."""

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
_SLOW_NODE_AFTER_S = 0.1
_LOCK_TIMEOUT_S = 0.05
"""How long a frame that may be dropped waits while another one is written."""


def timestamp(moment: datetime.datetime | None = None) -> Timestamp:
    """Return a time, by default now, as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(moment or datetime.datetime.now(datetime.UTC))
    return stamp


class FrameWriter:
    """Writes to the socket of the node.

    A frame that must not be lost waits while the socket is full, which blocks the library's callback (backpressure).
    A frame that may be lost (progress, log lines) is dropped instead.
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
        """Send a frame, and wait while the socket is full."""
        self._stamp(frame)
        with self._wait_for_node(), self._lock:
            self._write(framing.frame(frame))

    def commit(self, frames: Iterable[frames_pb2.Frame], wait: Callable[[], None] = lambda: None) -> bool:
        """Send the frames of one event, wait until the node has committed them, and return whether there were any.

        `wait` is called before the first frame is sent, and returns when the frames may be sent.

        Only one thread calls this at a time. If the node is gone the call never returns: the event must not count as
        handled, and the process is about to end.
        """
        # Build all frames before the first one is sent, so that a fault sends none of them.
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
        """Record that the node has committed every frame up to this number."""
        with self._commits:
            self._committed = max(self._committed, number)
            self._commits.notify_all()

    def offer(self, frame: frames_pb2.Frame) -> bool:
        """Send a frame if the node reads without delay, and return whether it was sent."""
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
        """Try to send a frame for a bounded time, then call `and_then`; no later frame is sent."""
        self._stamp(frame)
        has_lock = self._lock.acquire(timeout=_LAST_FRAME_TIMEOUT_S)
        try:
            if has_lock:
                limit = struct.pack("ll", _LAST_FRAME_TIMEOUT_S, 0)
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
                self._write(framing.frame(frame))
        finally:
            # Keep the lock, so that no frame follows the last one.
            and_then()

    def waited_for_node(self) -> bool:
        """Return whether a thread waits for the node, or has waited since the last call."""
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
                # A send that the node takes at once is not a wait.
                self._has_waited |= time.monotonic() - began > _SLOW_NODE_AFTER_S

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
            # The node is gone or no longer reads. No frame may follow half a frame. The command reader sees the closed
            # socket too and ends this process.
            self._is_open = False
