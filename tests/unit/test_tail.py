"""The tail of the log and the streams that sit there, over a log in memory that can fail, be held back and be away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from service.bus.hub import LOG_TOPIC, WakeupHub
from service.domain.caller import ANONYMOUS
from service.domain.errors import Unavailable
from service.domain.log_positions import START, LogPosition, ResumeTokenCodec
from service.domain.watch import Bookmark, Delivered, EventFilter, LogBounds, LoggedEvent, LogPage, StartPosition, Step
from service.watch import service as watching_module
from service.watch import tailer as tail_module
from service.watch.service import WatchService
from service.watch.tailer import LogTailer
from tests.eventually import eventually

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NEVER = 3600.0


class MemoryLog:
    """ports.eventlog.LogReader over a list. Places above `horizon` are held back."""

    def __init__(self) -> None:
        self.events: list[LoggedEvent] = []
        self.horizon = 1
        self.held = 0
        """So many looks more see nothing but that something is held."""
        self.is_busy = False
        """Whenever events can be read, others are held back."""
        self.failure: Exception | None = None
        self.looks = 0

    def append(self, count: int = 1) -> None:
        """Committed, and below the horizon."""
        for _ in range(count):
            number = len(self.events) + 1
            place = LogPosition(self.horizon, number)
            self.events.append(LoggedEvent(place, "shop", number, NOW, NOW, "RECEIPT", b"payload"))
            self.horizon += 1

    async def bounds(self, asked: LogPosition = START) -> LogBounds:
        return LogBounds(START, LogPosition(self.horizon), has_asked=True)

    async def check_known(self, wanted: EventFilter) -> None:
        """Any."""

    async def read(self, after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        self.looks += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if self.held:
            self.held -= 1
            return LogPage([], after, is_last=True, is_held=True, newest_id=len(self.events), read_time=NOW)
        found = [event for event in self.events if event.position > after][:limit]
        is_last = len(found) < limit
        upto = max(after, LogPosition(self.horizon)) if is_last else found[-1].position
        return LogPage(found, upto, is_last, bool(found) and self.is_busy, len(self.events), NOW)


class Scene:
    """A log, its tail and streams."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.hub = WakeupHub()
        self.watching = WatchService(
            self.log, LogTailer(self.log.read, self.hub), ResumeTokenCodec(b"key"), max_lag_s=60.0
        )

    async def caught_up(self, steps: AsyncIterator[Step]) -> None:
        """Until a stream sits at the tail, and the tail waits for a hint."""
        async with asyncio.timeout(10):
            while not (isinstance(step := await anext(steps), Bookmark) and step.is_caught_up):
                pass
            looks = -1
            while looks != self.log.looks:
                looks = self.log.looks
                await asyncio.sleep(0.02)

    async def sequences(self, steps: AsyncIterator[Step], count: int) -> list[int]:
        """Of the next events."""
        found: list[int] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                if isinstance(step := await anext(steps), Delivered):
                    found.append(step.event.sequence)
        return found


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Nobody looks again by himself: what comes, comes because of a hint."""
    monkeypatch.setattr(tail_module, "HINTLESS_POLL_S", NEVER)
    return Scene()


async def test_a_hint_has_the_tail_look_once_for_all_streams(scene: Scene) -> None:
    streams = [scene.watching.watch(EventFilter(ANONYMOUS), StartPosition()) for _ in range(20)]
    for steps in streams:
        await scene.caught_up(steps)
    before = scene.log.looks
    scene.log.append(3)
    for _ in range(50):
        scene.hub.wake(LOG_TOPIC)
    for steps in streams:
        assert await scene.sequences(steps, 3) == [1, 2, 3]
    # One more at the most: a hint may come while it reads.
    assert scene.log.looks - before <= 2
    for steps in streams:
        await steps.aclose()
    await eventually(lambda: not scene.hub._listeners, timeout=10, every=0)


async def test_what_is_held_back_is_looked_for_again_without_a_hint(scene: Scene) -> None:
    async with aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition())) as steps:
        await scene.caught_up(steps)
        scene.log.append()
        scene.log.held = 5
        scene.hub.wake(LOG_TOPIC)
        assert await scene.sequences(steps, 1) == [1]
        assert scene.log.held == 0


async def test_the_pause_begins_anew_with_every_event_that_is_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    scene.log.is_busy = True
    async with aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition())) as steps:
        await scene.caught_up(steps)
        monkeypatch.setattr(asyncio, "sleep", note)
        scene.log.append()
        scene.log.held = 9
        scene.hub.wake(LOG_TOPIC)
        await scene.sequences(steps, 1)
        await eventually(lambda: len(pauses) >= 10, every=0)
        monkeypatch.undo()
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1, 0.001]


async def test_an_outage_is_silence_for_a_stream_at_the_tail_and_for_one_that_catches_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "HINTLESS_POLL_S", 0.01)
    monkeypatch.setattr(watching_module, "HINTLESS_POLL_S", 0.01)
    scene.log.append(2)
    async with (
        aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition())) as at_tail,
        aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition(is_oldest=True))) as behind,
    ):
        async with asyncio.timeout(10):
            while not (isinstance(step := await anext(at_tail), Bookmark) and step.is_caught_up):
                pass
            assert isinstance(await anext(behind), Bookmark)
        scene.log.failure = Unavailable("away")
        coming = [asyncio.create_task(scene.sequences(at_tail, 1)), asyncio.create_task(scene.sequences(behind, 3))]
        looks = scene.log.looks
        await eventually(lambda: scene.log.looks >= looks + 10)
        scene.log.append()
        assert not any(task.done() for task in coming)
        scene.log.failure = None
        assert await asyncio.gather(*coming) == [[3], [1, 2, 3]]


async def test_a_tail_that_fails_leaves_the_streams_to_read_for_themselves(scene: Scene) -> None:
    async with aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition())) as steps:
        await scene.caught_up(steps)
        scene.log.failure = ValueError("a fault of ours")
        with capture_logs() as logs:
            scene.hub.wake(LOG_TOPIC)
            await eventually(lambda: logs)
        assert [line["log_level"] for line in logs] == ["error"]
        scene.log.failure = None
        scene.log.append()
        assert await scene.sequences(steps, 1) == [1]
        # It sits at a tail again, which a hint reaches.
        await scene.caught_up(steps)
        scene.log.append()
        scene.hub.wake(LOG_TOPIC)
        assert await scene.sequences(steps, 1) == [2]


async def test_a_stream_that_sits_down_behind_or_before_the_tail_misses_and_repeats_nothing(scene: Scene) -> None:
    async with aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition())) as first:
        await scene.caught_up(first)
        # The tail has not heard of these: whoever comes now has read further than it.
        scene.log.append(5)
        async with aclosing(scene.watching.watch(EventFilter(ANONYMOUS), StartPosition(is_oldest=True))) as second:
            assert await scene.sequences(second, 5) == [1, 2, 3, 4, 5]
            await scene.caught_up(second)
            scene.log.append(2)
            scene.hub.wake(LOG_TOPIC)
            assert await scene.sequences(second, 2) == [6, 7]
            assert await scene.sequences(first, 7) == [1, 2, 3, 4, 5, 6, 7]
