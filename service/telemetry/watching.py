"""Reading and watching the event log, counted. What is inside does not know, and is not changed by it."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from service.domain.places import START, Place
from service.domain.watched import EventFilter, Given, LogBounds, Page, Start, Step
from service.ports import LogReader
from service.telemetry.metrics import WatchMetrics

Watch = Callable[[EventFilter, Start], AsyncGenerator[Step, None]]
"""service.sessions.watching.Watching.watch."""


class MeasuredTailReader:
    """The tail's LogReader: how long each event took to get there is observed."""

    def __init__(self, inner: LogReader, metrics: WatchMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def bounds(self, asked: Place = START) -> LogBounds:
        """See LogReader, here and below."""
        return await self._inner.bounds(asked)

    async def check_known(self, session_ids: Sequence[str]) -> None:
        """Raises NotFound."""
        await self._inner.check_known(session_ids)

    async def read(self, after: Place, wanted: EventFilter, limit: int) -> Page | None:
        """A page."""
        page = await self._inner.read(after, wanted, limit)
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
        """See service.rpc.usecases.Watching."""
        async with aclosing(self._watch(wanted, start)) as steps:
            # Up to here it may be refused.
            yield await anext(steps)
            with self._metrics.open_stream():
                async for step in steps:
                    if isinstance(step, Given):
                        self._metrics.given()
                    yield step
