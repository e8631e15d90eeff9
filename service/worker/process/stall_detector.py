"""Whether what this process is for goes on: it obeys its node, and what the library reports comes through.

A thread that did nothing but say that it lives would say so while everything else is stuck: CONNECTED for ever, and
deaf. So with every progress that this process tells its node, it looks whether these parts go on.

It counts looks and not seconds: a process that stood still with its whole machine is not stuck.
"""

from collections.abc import Callable

_MOST_LOOKS = 4


class StallDetector:
    """To be looked at once a second."""

    def __init__(self, event_in_hand: Callable[[], int], has_waited: Callable[[], bool]) -> None:
        """`event_in_hand`: the number of the library's event that is handled now, 0 if none is.

        `has_waited`: whether an event had to wait for the node or the database since this was last asked. That is no
        fault of this process.
        """
        self._event_in_hand = event_in_hand
        self._has_waited = has_waited
        self._event = 0
        self._looks_at_event = 0
        self._looks_without_obeying = 0

    def obeying(self) -> None:
        """The reader of commands has come round, whether or not there was one."""
        self._looks_without_obeying = 0

    def look(self) -> str:
        """Return what does not go on, in words; empty if all does."""
        event, waited = self._event_in_hand(), self._has_waited()
        self._looks_at_event = self._looks_at_event + 1 if event and event == self._event and not waited else 0
        self._event = event
        self._looks_without_obeying += 1
        if self._looks_at_event >= _MOST_LOOKS:
            return "an event of the library does not come to its end"
        if self._looks_without_obeying > _MOST_LOOKS:
            return "no command has been obeyed for some seconds"
        return ""
