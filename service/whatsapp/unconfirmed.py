"""What this process has seen and nobody has committed yet.

WhatsApp considers these messages delivered (facts, 7): until the node confirms that they are in the log, this is the
only place where they are. The amount is bounded: when it is reached, whoever adds waits, the library's channel fills
up, and WhatsApp keeps what comes next.
"""

import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Numbered:
    """A frame with a number, as it went over the wire."""

    number: int
    data: bytes


class Unconfirmed:
    """Numbered frames, oldest first. Safe to use from any thread."""

    def __init__(self, most_frames: int = 10_000, most_bytes: int = 64 * 1024 * 1024) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[Numbered] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_bounded = True

    def add(self, number: int, data: bytes) -> None:
        """Keep a frame; waits while there are too many. Numbers only grow."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._frames.append(Numbered(number, data))
            self._bytes += len(data)

    def confirm(self, number: int) -> None:
        """Forget every frame up to this number."""
        with self._changed:
            while self._frames and self._frames[0].number <= number:
                self._bytes -= len(self._frames.popleft().data)
            self._changed.notify_all()

    def unbound(self) -> None:
        """Keep whatever comes from now on: nobody will confirm any more, and the end of this process is near."""
        with self._changed:
            self._is_bounded = False
            self._changed.notify_all()

    def wait_until_settled(self, limit: float) -> None:
        """Until everything is confirmed, or nobody will confirm any more, but no longer than `limit` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._frames or not self._is_bounded, limit)

    def all(self) -> tuple[Numbered, ...]:
        """What is left, oldest first."""
        with self._changed:
            return tuple(self._frames)

    def _has_room(self) -> bool:
        if not self._is_bounded:
            return True
        return len(self._frames) < self._most_frames and self._bytes < self._most_bytes
