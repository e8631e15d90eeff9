"""Reads the end of the log once, for all streams of this node that are up to date, and only while there are any."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog

from service.domain.errors import Unavailable
from service.domain.log_positions import START, LogPosition
from service.domain.watch import EventFilter, LoggedEvent, LogPage
from service.ports import Metrics, Read, Subscription, Wakeups

log = structlog.get_logger(__name__)

HINTLESS_POLL_S = 0.5
"""Seconds after which the tail looks again without any hint."""
PAGE_SIZE = 256
"""Events that are read in one look at most."""
SUBSCRIPTION_EVENTS = 512
"""Events that wait for one stream at most; one that takes them too slowly reads for itself."""
SUBSCRIPTION_BYTES = 512 * 1024
"""Of payloads, the same."""
MIN_POLL_S = 0.001
MAX_POLL_S = 0.1
"""Seconds after which the tail looks again while events are committed that a transaction in flight holds back: first,
then twice as long each time, and at last."""

_ALL = EventFilter()


class TailSubscription:
    """A stream's place at the tail: what has come since it sat down, until that is too much."""

    def __init__(self, wanted: EventFilter, since: LogPosition) -> None:
        self._wanted = wanted
        self._events: deque[LoggedEvent] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self.since = since
        """From here on everything that is wanted comes here."""
        self.upto = since
        """Everything up to here has been given, or waits here."""
        self.read_time: datetime | None = None
        """When the tail last looked, by the database's clock; None: not since this stream sat down."""
        self.newest_id = 0
        """The highest id in the log when the tail last looked."""
        self.is_lost = False
        """Too much came: what is left here is to be forgotten, and read."""

    @property
    def has_news(self) -> bool:
        """Something has come that was not taken, or too much to wait here."""
        return self.is_lost or bool(self._events)

    def take(self, page: LogPage) -> None:
        """What the tail has read."""
        wanted = [event for event in page.events if self._wanted.passes(event)]
        self._events.extend(wanted)
        self._bytes += sum(len(event.payload) for event in wanted)
        if len(self._events) > SUBSCRIPTION_EVENTS or (self._bytes > SUBSCRIPTION_BYTES and len(self._events) > 1):
            self.is_lost = True
            self._events.clear()
        self.upto, self.read_time, self.newest_id = page.upto, page.read_time, page.newest_id
        if wanted or self.is_lost:
            self._came.set()

    def lose(self) -> None:
        """What is to come is not known any more."""
        self.is_lost = True
        self._came.set()

    async def wait(self, until: float) -> None:
        """Until something has come, or the loop's clock says so."""
        try:
            async with asyncio.timeout_at(until):
                await self._came.wait()
        except TimeoutError:
            return

    def next(self) -> LoggedEvent | None:
        """The next event that waits here, if there is one."""
        if not self._events:
            self._came.clear()
            return None
        event = self._events.popleft()
        self._bytes -= len(event.payload)
        return event


class LogTailer:
    """The end of the log."""

    def __init__(self, read: Read, wakeups: Wakeups, metrics: Metrics | None = None) -> None:
        self._read = read
        self._metrics = metrics or Metrics()
        self._wakeups = wakeups
        self._seats: set[TailSubscription] = set()
        self._place = START
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def seat(self, wanted: EventFilter, place: LogPosition) -> Iterator[TailSubscription]:
        """For a stream that has read up to `place`: what comes later, perhaps from a later place (its `since`) on.

        The first one who sits down sets the tail to reading, the last one who leaves ends that.
        """
        if not self._seats:
            self._place = place
            self._task = asyncio.create_task(self._run(), name="tail")
        seat = TailSubscription(wanted, self._place)
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            if not self._seats and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        try:
            with self._wakeups.listen_to_log() as hints:
                await self._follow(hints)
        except Exception:
            # Not the end of the node: the streams go on by themselves, and say so if they meet the same fault.
            log.exception("The tail of the event log failed; each stream reads for itself.")
        if asyncio.current_task() is not self._task:
            return
        # Who sits here would wait for ever.
        self._task = None
        for seat in tuple(self._seats):
            seat.lose()
        self._seats.clear()

    async def _follow(self, hints: Subscription) -> None:
        """Until what comes next has been deleted."""
        pause = MIN_POLL_S
        # A cancellation can be swallowed on the way: two that read would move one place.
        while asyncio.current_task() is self._task:
            try:
                page = await self._read(self._place, _ALL, PAGE_SIZE)
            except Unavailable:
                await hints.wait(HINTLESS_POLL_S)
                continue
            if page is None:
                return
            self._place = page.upto
            for event in page.events:
                self._metrics.read_by_tail((page.read_time - event.appended_at).total_seconds())
            for seat in tuple(self._seats):
                seat.take(page)
            if not page.is_last:
                continue
            if page.events:
                # What held these back is gone; what holds others is something else, and perhaps as quick.
                pause = MIN_POLL_S
            if page.is_held:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_POLL_S)
            else:
                await hints.wait(HINTLESS_POLL_S)
                pause = MIN_POLL_S
