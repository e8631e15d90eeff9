"""What this process tells its node: frames, in order, from any thread."""

import contextlib
import datetime
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from service.pool import wire
from service.whatsapp.unconfirmed import Unconfirmed
from zap.worker.v1 import frames_pb2

_LAST_WORDS_SECONDS = 2
_WAITED_SECONDS = 0.1
_OTHERS_SECONDS = 0.05
"""How long another frame may take to be written before what can be lost gives way to it."""


def timestamp(moment: datetime.datetime | None = None) -> Timestamp:
    """A moment, by default now, as it goes into frames."""
    stamp = Timestamp()
    stamp.FromDatetime(moment or datetime.datetime.now(datetime.UTC))
    return stamp


class Reports:
    """The writing end of the socket.

    What must not be lost waits while the socket is full: that holds up the library's callback, and so WhatsApp. What
    can be lost (progress, log lines) is dropped instead.
    """

    def __init__(self, connection: socket.socket, unconfirmed: Unconfirmed) -> None:
        self._connection = connection
        self._unconfirmed = unconfirmed
        self._lock = threading.Lock()
        self._numbering = threading.Lock()
        self._number = 0
        self._is_open = self._is_heard = True
        self._counting = threading.Lock()
        self._waiting = 0
        self._has_waited = False

    def send(self, frame: frames_pb2.Frame) -> None:
        """Send it; waits while the socket is full."""
        self._stamp(frame)
        with self._wait_for_node(), self._lock:
            self._write(wire.frame(frame))

    def send_numbered(self, frame: frames_pb2.Frame) -> None:
        """Give it the next number, keep it until it is confirmed, and send it."""
        self._stamp(frame)
        # Waiting for room among the unconfirmed must not hold up the other frames: without progress this process
        # would be taken for stuck.
        with self._wait_for_node(), self._numbering:
            self._number += 1
            frame.number = self._number
            data = wire.frame(frame)
            self._unconfirmed.add(frame.number, data)
            with self._lock:
                self._write(data)

    def offer(self, frame: frames_pb2.Frame) -> bool:
        """Send it if that is possible without waiting for the node; whether it was."""
        if not self._lock.acquire(timeout=_OTHERS_SECONDS):
            return False
        try:
            if not self._has_room():
                return False
            self._stamp(frame)
            self._write(wire.frame(frame))
            return self._is_heard
        finally:
            self._lock.release()

    def send_last(self, frame: frames_pb2.Frame, and_then: Callable[[], None]) -> None:
        """Send it, or fail to within a bound, and nothing after it."""
        self._stamp(frame)
        has_lock = self._lock.acquire(timeout=_LAST_WORDS_SECONDS)
        try:
            if has_lock:
                limit = struct.pack("ll", _LAST_WORDS_SECONDS, 0)
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
                self._write(wire.frame(frame))
        finally:
            # The lock is kept: nobody writes behind the last frame.
            and_then()

    def waited_for_node(self) -> bool:
        """Whether somebody waits for the node to take something, or has waited since this was last asked."""
        with self._counting:
            waited = self._has_waited or self._waiting > 0
            self._has_waited = False
        return waited

    @property
    def is_heard(self) -> bool:
        """Whether there is a node that hears, as far as is known."""
        return self._is_heard

    def despair(self) -> None:
        """The node is as good as gone: keep numbered frames, and send what finds room without waiting for any.

        If the node wakes up after all it reads on where it was. A node that was stopped while it had the session's log
        locked is the only one that can write what came out of the library by then.
        """
        self._is_heard = False
        self._unconfirmed.unbound()
        if self._lock.acquire(timeout=_OTHERS_SECONDS):
            self._lock.release()
        else:
            # Somebody waits for room already, and would wait for ever.
            self.close()

    def close(self) -> None:
        """The node is gone: keep numbered frames, send nothing."""
        self._is_open = self._is_heard = False
        self._unconfirmed.unbound()
        with contextlib.suppress(OSError):
            # Whoever waits for room in the socket need not wait any longer. The node can read on, if it ever does.
            self._connection.shutdown(socket.SHUT_WR)

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
                self._has_waited |= time.monotonic() - began > _WAITED_SECONDS

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
            self._connection.sendall(data, 0 if self._is_heard else socket.MSG_DONTWAIT)
        except OSError:
            # The node is gone, or never reads again: half a frame must not be followed by another. The reader of
            # commands sees the same and ends this process; a numbered frame is kept all the same.
            self.close()
