"""What is of the moment: told at once, but no more than about once a second of the same, and never waited for."""

import threading
from collections.abc import Callable, Hashable

from zap.worker.v1 import frames_pb2

EVENTS_PER_SECOND = 50
"""Of which so many are told in a second; of others nothing is heard then. A busy group must not drown its session."""


class EphemeralThrottle:
    """Frames without a number: whoever is behind loses them. Safe to use from any thread."""

    def __init__(self, offer: Callable[[frames_pb2.Frame], bool]) -> None:
        """`offer` sends a frame if that is possible without waiting."""
        self._offer = offer
        self._lock = threading.Lock()
        self._told: dict[Hashable, frames_pb2.Frame | None] = {}
        """What was told about in this second, and the latest that has come about it since."""

    def tell(self, about: Hashable, frame: frames_pb2.Frame) -> None:
        """Tell it now if nothing was told about the same in this second, otherwise at its end, unless more comes."""
        with self._lock:
            if about in self._told:
                self._told[about] = frame
                return
            if len(self._told) >= EVENTS_PER_SECOND:
                return
            self._told[about] = None
        self._offer(frame)

    def begin_second(self) -> None:
        """The second is over."""
        with self._lock:
            latest = {about: frame for about, frame in self._told.items() if frame is not None}
            self._told = dict.fromkeys(latest)
        for frame in latest.values():
            if not self._offer(frame):
                # Each refusal may have taken a moment, and this is the thread that tells of progress.
                return
