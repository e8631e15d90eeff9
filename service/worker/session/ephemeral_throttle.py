"""Sends ephemeral events at once, but at most about one a second for each subject, and never waits for the node."""

import threading
from collections.abc import Callable, Hashable

from zap.worker.v1 import frames_pb2

EVENTS_PER_SECOND = 50
"""Maximum distinct subjects in a second; events about further subjects are dropped (a busy group has many)."""


class EphemeralThrottle:
    """Limits frames without a number, which are dropped while the node is slow. Safe to use from any thread."""

    def __init__(self, offer: Callable[[frames_pb2.Frame], bool]) -> None:
        """`offer` sends a frame if that is possible without waiting."""
        self._offer = offer
        self._lock = threading.Lock()
        self._latest: dict[Hashable, frames_pb2.Frame | None] = {}
        """By subject sent in this second, the latest frame that has come since; None if none has."""

    def submit(self, subject: Hashable, frame: frames_pb2.Frame) -> None:
        """Send the first frame of a second about a subject at once; keep only the latest later one for its end."""
        with self._lock:
            if subject in self._latest:
                self._latest[subject] = frame
                return
            if len(self._latest) >= EVENTS_PER_SECOND:
                return
            self._latest[subject] = None
        self._offer(frame)

    def begin_second(self) -> None:
        """Send the frames kept from the last second, and begin a new one."""
        with self._lock:
            kept = {subject: frame for subject, frame in self._latest.items() if frame is not None}
            self._latest = dict.fromkeys(kept)
        for frame in kept.values():
            if not self._offer(frame):
                # Each refusal can take some milliseconds, and this thread sends the heartbeat.
                return
