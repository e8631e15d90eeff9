"""What the core counts comes to be the metrics that operators see."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from service.bus.hub import WakeupHub
from service.bus.redis import RedisBus
from service.domain.caller import ANONYMOUS
from service.domain.errors import InvalidArgument
from service.domain.events import Event, StateChanged
from service.domain.log_positions import START, LogPosition
from service.domain.session import State
from service.domain.watch import Bookmark, Delivered, EventFilter, LoggedEvent, LogPage, StartPosition, Step
from service.protocol.events import to_json
from service.telemetry.metrics import NodeMetrics, WatchMetrics
from service.watch.limiter import WatchLimiter
from service.watch.tailer import LogTailer
from tests.eventually import eventually
from tests.unit.test_lease_renewer import Leases, keeper

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS = [
    LoggedEvent(LogPosition(1, number), "shop", number, NOW, NOW - timedelta(seconds=number), "RECEIPT", b"")
    for number in (1, 2)
]
STEPS: list[Step] = [
    Bookmark("0", is_caught_up=False),
    *(Delivered(event, "t") for event in EVENTS),
    Bookmark("t", is_caught_up=True),
]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def test_renewals_are_counted_by_result(registry: CollectorRegistry) -> None:
    leases = Leases("one", "two")
    renewer = keeper(leases, metrics=NodeMetrics(registry))
    assert await renewer.renew()
    leases.renewal_fails = True
    assert not await renewer.renew()
    for result in ("confirmed", "failed"):
        assert registry.get_sample_value("zap_lease_renewals_total", {"result": result}) == pytest.approx(1)
    assert registry.get_sample_value("zap_leases") == pytest.approx(2)


def test_events_are_counted_by_type(registry: CollectorRegistry) -> None:
    bus = RedisBus("redis://localhost", WakeupHub(), to_json, NodeMetrics(registry))
    bus.publish([Event(1, "a", 1, NOW, StateChanged(State.PAIRING, State.CONNECTED, ""))])
    assert registry.get_sample_value("zap_events_total", {"type": "STATE_CHANGED"}) == pytest.approx(1)


async def given(wanted: EventFilter, start: StartPosition) -> AsyncGenerator[Step, None]:
    if start.token:
        raise InvalidArgument([])
    for step in STEPS:
        yield step


async def test_streams_and_what_they_are_given_are_counted(registry: CollectorRegistry) -> None:
    async with aclosing(
        WatchLimiter(given, 1, WatchMetrics(registry)).watch(EventFilter(ANONYMOUS), StartPosition())
    ) as steps:
        seen = [await anext(steps), await anext(steps)]
        assert registry.get_sample_value("zap_watch_streams") == 1
        seen += [step async for step in steps]
    assert seen == STEPS
    assert registry.get_sample_value("zap_watch_streams") == 0
    assert registry.get_sample_value("zap_watch_events_total") == 2


async def test_a_stream_that_is_refused_is_not_counted(registry: CollectorRegistry) -> None:
    with pytest.raises(InvalidArgument):
        await anext(
            WatchLimiter(given, 1, WatchMetrics(registry)).watch(EventFilter(ANONYMOUS), StartPosition("forged"))
        )
    assert registry.get_sample_value("zap_watch_streams") == 0


async def test_how_late_the_tail_comes_to_each_event_is_observed(registry: CollectorRegistry) -> None:
    pages: list[LogPage | None] = [
        LogPage(EVENTS, LogPosition(2), is_last=True, is_held=False, newest_id=2, read_time=NOW)
    ]

    async def read(after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        return pages.pop(0) if pages else None

    tail = LogTailer(read, WakeupHub(), WatchMetrics(registry))
    with tail.subscribe(EventFilter(ANONYMOUS), START) as subscription:
        await eventually(lambda: subscription.has_events, timeout=5, every=0)
    assert registry.get_sample_value("zap_watch_tail_lag_seconds_count") == 2
    assert registry.get_sample_value("zap_watch_tail_lag_seconds_sum") == 3


def test_a_number_that_others_keep_is_read_when_it_is_asked_for(registry: CollectorRegistry) -> None:
    dropped = [0]
    NodeMetrics(registry).watch("zap_events_dropped", "Live events that were dropped.", lambda: dropped[0])
    dropped[0] = 3
    assert registry.get_sample_value("zap_events_dropped") == pytest.approx(3)
