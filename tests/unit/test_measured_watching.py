"""Streams and the tail are counted, and given what they would be given."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from service.domain.errors import InvalidArgument
from service.domain.places import START, Place
from service.domain.watched import Bookmark, EventFilter, Given, LoggedEvent, Page, Start, Step
from service.telemetry.metrics import WatchMetrics
from service.telemetry.watching import MeasuredRead, MeasuredWatching

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS = [
    LoggedEvent(Place(1, number), "shop", number, NOW, NOW - timedelta(seconds=number), "RECEIPT", b"")
    for number in (1, 2)
]
PAGE = Page(EVENTS, Place(2), is_last=True, is_held=False, newest_id=2, read_time=NOW)
STEPS: list[Step] = [
    Bookmark("0", is_caught_up=False),
    *(Given(event, "t") for event in EVENTS),
    Bookmark("t", is_caught_up=True),
]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def given(wanted: EventFilter, start: Start) -> AsyncGenerator[Step, None]:
    if start.token:
        raise InvalidArgument([])
    for step in STEPS:
        yield step


async def test_streams_that_stand_and_what_they_are_given_are_counted(registry: CollectorRegistry) -> None:
    watching = MeasuredWatching(given, WatchMetrics(registry))
    async with aclosing(watching.watch(EventFilter(), Start())) as steps:
        seen = [await anext(steps), await anext(steps)]
        assert registry.get_sample_value("zap_watch_streams") == 1
        seen += [step async for step in steps]
    assert seen == STEPS
    assert registry.get_sample_value("zap_watch_streams") == 0
    assert registry.get_sample_value("zap_watch_events_total") == 2


async def test_a_stream_that_is_refused_never_stood(registry: CollectorRegistry) -> None:
    watching = MeasuredWatching(given, WatchMetrics(registry))
    with pytest.raises(InvalidArgument):
        await anext(watching.watch(EventFilter(), Start("forged")))
    assert registry.get_sample_value("zap_watch_streams") == 0


async def test_how_late_the_tail_comes_to_each_event_is_observed(registry: CollectorRegistry) -> None:
    pages: list[Page | None] = [PAGE, None]

    async def one(after: Place, wanted: EventFilter, limit: int) -> Page | None:
        return pages.pop(0)

    read = MeasuredRead(one, WatchMetrics(registry))
    assert await read(START, EventFilter(), 10) is PAGE
    assert await read(START, EventFilter(), 10) is None
    assert registry.get_sample_value("zap_watch_tail_lag_seconds_count") == 2
    assert registry.get_sample_value("zap_watch_tail_lag_seconds_sum") == 3
