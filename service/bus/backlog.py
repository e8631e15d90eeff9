"""Live events that wait for Redis: the newest, within a number and an amount of memory. All of them are in the log."""

from collections import deque
from collections.abc import Iterable, Sequence

from service.domain.events import Event

MOST_EVENTS, MOST_BYTES = 10_000, 64 * 1024 * 1024
"""That wait at the most."""
BATCH_EVENTS, BATCH_BYTES = 50, 1024 * 1024
"""That go to Redis in one round trip, unless one alone is larger."""


class Backlog:
    """Oldest first. When it is full the oldest go."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self.dropped = 0
        """Events that went before they were taken."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._events)

    @property
    def has_batch(self) -> bool:
        """Whether as many wait as go in one round trip."""
        return len(self._events) >= BATCH_EVENTS or self._bytes >= BATCH_BYTES

    def extend(self, events: Iterable[Event]) -> None:
        """Have these wait as well."""
        for event in events:
            self._events.append(event)
            self._bytes += event.size
        while len(self._events) > MOST_EVENTS or self._bytes > MOST_BYTES:
            self._pop()
            self.dropped += 1

    def first(self) -> Sequence[Event]:
        """The oldest, as many as go in one round trip; they stay until they are `done`."""
        chosen: list[Event] = []
        size = 0
        for event in self._events:
            size += event.size
            if chosen and (len(chosen) == BATCH_EVENTS or size > BATCH_BYTES):
                break
            chosen.append(event)
        return chosen

    def done(self, events: Iterable[Event]) -> None:
        """These need not wait any longer."""
        for event in events:
            # It may have been dropped while it was on its way.
            if self._events and self._events[0] is event:
                self._pop()

    def _pop(self) -> None:
        self._bytes -= self._events.popleft().size
