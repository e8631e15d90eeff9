"""Detects a stall: the process no longer reads its node's commands, or an event of the library is never finished.

A heartbeat thread that checked nothing would report progress while everything else is stuck. So each heartbeat checks
these two parts first.

The detector counts checks, not seconds, so that a suspended machine is not reported as a stall.
"""

from collections.abc import Callable

_MAX_CHECKS = 4


class StallDetector:
    """Finds a stall when it is checked once a second."""

    def __init__(self, current_event: Callable[[], int], has_waited: Callable[[], bool]) -> None:
        """`current_event` returns the number of the library's event that is being handled, 0 if there is none.

        `has_waited` returns whether an event has waited for the node or the database since the last call. Such a wait
        is backpressure, not a stall of this process.
        """
        self._current_event = current_event
        self._has_waited = has_waited
        self._event = 0
        self._checks_of_event = 0
        self._checks_since_read = 0

    def command_reader_alive(self) -> None:
        """Record that the command reader is running, whether or not it has read a command."""
        self._checks_since_read = 0

    def check(self) -> str:
        """Return a description of the stall, or an empty text if there is none."""
        event, waited = self._current_event(), self._has_waited()
        self._checks_of_event = self._checks_of_event + 1 if event and event == self._event and not waited else 0
        self._event = event
        self._checks_since_read += 1
        if self._checks_of_event >= _MAX_CHECKS:
            return "an event of the library does not come to its end"
        if self._checks_since_read > _MAX_CHECKS:
            return "no command has been obeyed for some seconds"
        return ""
