"""The arithmetic of hand-overs: how many go on at a time."""

import math

CONNECT_WAIT_S = 2.0
"""Seconds for a session to be connected at its heir, before the next one is handed over all the same."""


class HandoverConcurrency:
    """As few at a time as there is time for: of several each is away for as long as all of them take together."""

    def __init__(self, fewest: int) -> None:
        self._fewest = fewest
        self._took = 0.0
        self._count = 0

    def took(self, seconds: float) -> None:
        """One is done."""
        self._took += seconds
        self._count += 1

    def needed(self, left: int, seconds: float) -> int:
        """How many of those that are left must go on now, to be done in half of the time, if they are like the others.

        The other half is for what cannot be known: with more at a time, each takes longer.
        """
        each = self._took / self._count if self._count else 0.0
        return max(self._fewest, math.ceil(left * each / (seconds / 2)))
