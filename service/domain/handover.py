"""Compute how many hand-overs run at a time."""

import math

CONNECT_WAIT_S = 2.0
"""Longest wait, in seconds, for a session to connect at its target before the next hand-over begins."""


class HandoverConcurrency:
    """Chooses the lowest concurrency that meets the deadline, because parallel hand-overs slow each other down."""

    def __init__(self, fewest: int) -> None:
        self._fewest = fewest
        self._took = 0.0
        self._count = 0

    def took(self, seconds: float) -> None:
        """Record the duration of a hand-over."""
        self._took += seconds
        self._count += 1

    def needed(self, left: int, seconds: float) -> int:
        """Return how many of the hand-overs left must run at a time to finish in half of `seconds`.

        Assumes the average duration so far. The other half is a reserve: with more at a time, each takes longer.
        """
        each = self._took / self._count if self._count else 0.0
        return max(self._fewest, math.ceil(left * each / (seconds / 2)))
