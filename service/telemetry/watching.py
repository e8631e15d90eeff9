"""Reading and watching the event log, counted. What is inside does not know, and is not changed by it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.domain.places import Place
from service.domain.watched import EventFilter, Given, Page, Start, Step
from service.ports import Read, Watch
from service.telemetry.metrics import WatchMetrics


class MeasuredRead:
    """The tail's way to read: how long each event took to get there is observed."""

    def __init__(self, read: Read, metrics: WatchMetrics) -> None:
        self._read = read
        self._metrics = metrics

    async def __call__(self, after: Place, wanted: EventFilter, limit: int) -> Page | None:
        """A page."""
        page = await self._read(after, wanted, limit)
        if page is not None:
            for event in page.events:
                self._metrics.read_by_tail((page.read_time - event.appended_at).total_seconds())
        return page


class MeasuredWatching:
    """Streams that stand, and what they are given."""

    def __init__(self, watch: Watch, metrics: WatchMetrics) -> None:
        self._watch = watch
        self._metrics = metrics

    async def watch(self, wanted: EventFilter, start: Start) -> AsyncGenerator[Step, None]:
        """See service.sessions.watching.Watching."""
        async with aclosing(self._watch(wanted, start)) as steps:
            # Up to here it may be refused.
            yield await anext(steps)
            with self._metrics.open_stream():
                async for step in steps:
                    if isinstance(step, Given):
                        self._metrics.given()
                    yield step
