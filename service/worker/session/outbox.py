"""Sends a session's frames to the node: stamps them, numbers the durable ones, and waits for their commits."""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from service.worker.process.frame_writer import FrameWriter
from zap.worker.v1 import frames_pb2

_SLOW_NODE_AFTER_S = 0.1


def timestamp(moment: datetime.datetime | None = None) -> Timestamp:
    """Return a time, by default now, as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(moment or datetime.datetime.now(datetime.UTC))
    return stamp


class Outbox:
    """Sends the frames of one session. Safe to use from any thread."""

    def __init__(self, session_id: str, writer: FrameWriter) -> None:
        self._session_id = session_id
        self._writer = writer
        self._commits = threading.Condition()
        self._number = self._committed = 0
        self._counting = threading.Lock()
        self._waiting = 0
        self._has_waited = False

    def send(self, frame: frames_pb2.Frame) -> None:
        """Send a frame, and wait while the socket is full."""
        self._stamp(frame)
        with self._wait_for_node():
            self._writer.send(frame)

    def offer(self, frame: frames_pb2.Frame) -> bool:
        """Send a frame if the node reads without delay, and return whether it was sent."""
        self._stamp(frame)
        return self._writer.offer(frame)

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
                self._writer.send(frame)
            with self._commits:
                self._commits.wait_for(lambda: self._committed >= self._number)
        return bool(made)

    def committed(self, number: int) -> None:
        """Record that the node has committed every frame of this session up to this number."""
        with self._commits:
            self._committed = max(self._committed, number)
            self._commits.notify_all()

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

    def _stamp(self, frame: frames_pb2.Frame) -> None:
        frame.session_id = self._session_id
        if not frame.HasField("time"):
            frame.time.CopyFrom(timestamp())
