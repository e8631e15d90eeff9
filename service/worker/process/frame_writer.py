"""Writes this process's frames to its node, in order, from any thread."""

import select
import socket
import struct
import threading
from collections.abc import Callable

from service.wire import framing
from zap.worker.v1 import frames_pb2

_LAST_FRAME_TIMEOUT_S = 2
_LOCK_TIMEOUT_S = 0.05
"""How long a frame that may be dropped waits while another one is written."""


class FrameWriter:
    """Writes to the socket of the node.

    A frame that must not be lost waits while the socket is full, which blocks the library's callback (backpressure).
    A frame that may be lost (progress, log lines) is dropped instead.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._is_open = True

    def send(self, frame: frames_pb2.Frame) -> None:
        """Send a frame, and wait while the socket is full."""
        with self._lock:
            self._write(framing.frame(frame))

    def offer(self, frame: frames_pb2.Frame) -> bool:
        """Send a frame if the node reads without delay, and return whether it was sent."""
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_S):
            return False
        try:
            if not self._has_room():
                return False
            self._write(framing.frame(frame))
            return self._is_open
        finally:
            self._lock.release()

    def send_last(self, frame: frames_pb2.Frame, and_then: Callable[[], None]) -> None:
        """Try to send a frame for a bounded time, then call `and_then`; no later frame is sent."""
        has_lock = self._lock.acquire(timeout=_LAST_FRAME_TIMEOUT_S)
        try:
            if has_lock:
                limit = struct.pack("ll", _LAST_FRAME_TIMEOUT_S, 0)
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
                self._write(framing.frame(frame))
        finally:
            # Keep the lock, so that no frame follows the last one.
            and_then()

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
