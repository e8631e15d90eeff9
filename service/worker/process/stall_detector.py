"""Detects a stall: something that has to make progress makes none, check after check.

The detector counts checks, not seconds, so that a suspended machine is not reported as a stall.
"""

_MAX_CHECKS = 4


class StallDetector:
    """Finds a stall when it is checked once a second."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._checks = 0

    def progressed(self) -> None:
        """Record progress."""
        self._checks = 0

    def check(self) -> str:
        """Return the description of the stall, or an empty text if there is none."""
        self._checks += 1
        return self._description if self._checks > _MAX_CHECKS else ""
