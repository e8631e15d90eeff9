"""Reads the end of the log once for all streams of this node that are up to date, while there are any."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog

from service.domain.caller import NODE
from service.domain.errors import Unavailable
from service.domain.log_positions import START, LogPosition
from service.domain.watch import EventFilter, LoggedEvent, LogPage
from service.ports.bus import Subscription, Wakeups
from service.ports.eventlog import Read
from service.ports.metrics import Metrics

log = structlog.get_logger(__name__)

HINTLESS_POLL_S = 0.5
"""Seconds after which the log is read again without a hint, or while the database is away."""
PAGE_SIZE = 256
"""Most events that one read returns."""
SUBSCRIPTION_EVENTS = 512
"""Most events that wait for one stream; a stream that takes them too slowly reads the log by itself."""
SUBSCRIPTION_BYTES = 512 * 1024
"""Most bytes of payloads that wait for one stream."""
MIN_POLL_S = 0.001
MAX_POLL_S = 0.1
"""Shortest and longest wait in seconds, doubled each time, while an open transaction holds back committed events."""

_ALL = EventFilter(NODE)


class TailSubscription:
    """Queues the events that are new to one stream, until there are too many."""

    def __init__(self, wanted: EventFilter, since: LogPosition) -> None:
        self._wanted = wanted
        self._events: deque[LoggedEvent] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.since = since
        """The position from which on every wanted event is queued."""
        self.upto = since
        """The position up to which every wanted event was queued."""
        self.read_time: datetime | None = None
        """When the tail last read, by the database's clock; None: not since the stream subscribed."""
        self.newest_id = 0
        """The highest id in the log when the tail last read."""
        self.is_detached = False
        """Whether events may be missing here: the stream has to read the log by itself."""

    @property
    def has_events(self) -> bool:
        """Return whether events are queued, or the subscription is detached."""
        return self.is_detached or bool(self._events)

    def offer(self, page: LogPage) -> None:
        """Queue the wanted events of a page, or detach if they are too many."""
        wanted = [event for event in page.events if self._wanted.passes(event)]
        self._events.extend(wanted)
        self._bytes += sum(len(event.payload) for event in wanted)
        if len(self._events) > SUBSCRIPTION_EVENTS or (self._bytes > SUBSCRIPTION_BYTES and len(self._events) > 1):
            self.is_detached = True
            self._events.clear()
        self.upto, self.read_time, self.newest_id = page.upto, page.read_time, page.newest_id
        if wanted or self.is_detached:
            self._arrived.set()

    def detach(self) -> None:
        """End the subscription, because the tail does not read any more."""
        self.is_detached = True
        self._arrived.set()

    async def wait(self, until: float) -> None:
        """Wait until an event is queued, at most until a time of the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                await self._arrived.wait()
        except TimeoutError:
            return

    def next(self) -> LoggedEvent | None:
        """Remove and return the next event, if one is queued."""
        if not self._events:
            self._arrived.clear()
            return None
        event = self._events.popleft()
        self._bytes -= len(event.payload)
        return event


class LogTailer:
    """Reads the end of the log for its subscriptions."""

    def __init__(self, read: Read, wakeups: Wakeups, metrics: Metrics | None = None) -> None:
        self._read = read
        self._metrics = metrics or Metrics()
        self._wakeups = wakeups
        self._subscriptions: set[TailSubscription] = set()
        self._position = START
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def subscribe(self, wanted: EventFilter, position: LogPosition) -> Iterator[TailSubscription]:
        """Subscribe a stream that has read up to `position`, while the context lasts.

        The subscription may begin at a later position, its `since`. The first one starts the reading of the tail, the
        end of the last one stops it.
        """
        if not self._subscriptions:
            self._position = position
            self._task = asyncio.create_task(self._run(), name="tail")
        subscription = TailSubscription(wanted, self._position)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            if not self._subscriptions and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        try:
            with self._wakeups.listen_to_log() as hints:
                await self._follow(hints)
        except Exception:
            # Do not end the node: each stream reads by itself, and fails on its own if it meets the same error.
            log.exception("Tailing the event log failed; each stream reads the log by itself.")
        if asyncio.current_task() is not self._task:
            return
        # Wake all subscribers; otherwise they would wait for ever.
        self._task = None
        for subscription in tuple(self._subscriptions):
            subscription.detach()
        self._subscriptions.clear()

    async def _follow(self, hints: Subscription) -> None:
        """Read until the next events have been deleted."""
        pause = MIN_POLL_S
        # A cancellation can be swallowed on the way, and two tasks must not move one position.
        while asyncio.current_task() is self._task:
            try:
                page = await self._read(self._position, _ALL, PAGE_SIZE)
            except Unavailable:
                await hints.wait(HINTLESS_POLL_S)
                continue
            if page is None:
                return
            self._position = page.upto
            for event in page.events:
                self._metrics.read_by_tail((page.read_time - event.appended_at).total_seconds())
            for subscription in tuple(self._subscriptions):
                subscription.offer(page)
            if not page.is_last:
                continue
            if page.events:
                # The transaction that held these back has ended; another one may end as soon.
                pause = MIN_POLL_S
            if page.is_held:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_POLL_S)
            else:
                await hints.wait(HINTLESS_POLL_S)
                pause = MIN_POLL_S
