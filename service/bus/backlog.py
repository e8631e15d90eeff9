"""Holds live events that wait for Redis, bounded by number and memory. The log has all of them."""

from collections import deque
from collections.abc import Iterable, Sequence

from service.domain.events import Event

MOST_EVENTS, MOST_BYTES = 10_000, 64 * 1024 * 1024
"""Limits of the events that wait."""
BATCH_EVENTS, BATCH_BYTES = 50, 1024 * 1024
"""Limits of one batch, which is one round trip; a larger event is a batch alone."""


class Backlog:
    """Queues events, oldest first. When it is full it drops the oldest ones."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self.dropped = 0
        """Number of events dropped before they were published."""

    def __bool__(self) -> bool:
        """Return whether an event waits."""
        return bool(self._events)

    @property
    def has_batch(self) -> bool:
        """Return whether the waiting events fill a batch."""
        return len(self._events) >= BATCH_EVENTS or self._bytes >= BATCH_BYTES

    def extend(self, events: Iterable[Event]) -> None:
        """Append events, and drop the oldest ones beyond the limits."""
        for event in events:
            self._events.append(event)
            self._bytes += event.size
        while len(self._events) > MOST_EVENTS or self._bytes > MOST_BYTES:
            self._pop()
            self.dropped += 1

    def first(self) -> Sequence[Event]:
        """Return the next batch; its events stay queued until `done`."""
        batch: list[Event] = []
        size = 0
        for event in self._events:
            size += event.size
            if batch and (len(batch) == BATCH_EVENTS or size > BATCH_BYTES):
                break
            batch.append(event)
        return batch

    def done(self, events: Iterable[Event]) -> None:
        """Remove published events."""
        for event in events:
            # The event may have been dropped while it was being published.
            if self._events and self._events[0] is event:
                self._pop()

    def _pop(self) -> None:
        self._bytes -= self._events.popleft().size
