"""service.ports.Watch: the order of steps and the meaning of tokens are the same of the fake and of the real stream."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from service.domain.caller import ANONYMOUS
from service.domain.errors import InvalidArgument
from service.domain.log_positions import LogPosition
from service.domain.watch import Bookmark, Delivered, EventFilter, LoggedEvent, StartPosition, Step
from service.ports.eventlog import Watch
from tests.eventually import eventually
from tests.fakes.core import FakeWatching
from tests.integration.test_watching import Log, log

__all__ = ["log"]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ALL, OLDEST = EventFilter(ANONYMOUS), StartPosition(is_oldest=True)


class Place:
    """A stream of events of any session, and what appends to it."""

    def __init__(self, watch: Watch, append: Callable[[str, int], Awaitable[None]]) -> None:
        self.watch, self.append = watch, append

    async def until_caught_up(self, start: StartPosition, wanted: EventFilter = ALL) -> list[Step]:
        """The steps until the stream is up to date."""
        steps: list[Step] = []
        async with aclosing(self.watch(wanted, start)) as stream:
            async for step in stream:
                steps.append(step)
                if isinstance(step, Bookmark) and step.is_caught_up:
                    return steps
        raise AssertionError("the stream ended")


@pytest.fixture(params=["fake", "Postgres"])
async def place(request: pytest.FixtureRequest, log: Log) -> Place:
    fake = FakeWatching()

    async def append_to_fake(session_id: str, number: int) -> None:
        position = LogPosition(7, len(fake.logged) + 1)
        fake.logged.append(LoggedEvent(position, session_id, number, NOW, NOW, "MESSAGE_RECEIVED", b""))

    there = Place(fake.watch, append_to_fake) if request.param == "fake" else Place(log.watching.watch, log.append)
    for number, session_id in enumerate(("anna", "berta", "anna"), 1):
        await there.append(session_id, number)

    async def are_readable() -> bool:
        """Return whether no transaction of another test holds the horizon any more."""
        return len(events(await there.until_caught_up(OLDEST))) == 3

    await eventually(are_readable, "three events below the horizon")
    return there


def events(steps: list[Step]) -> list[str]:
    return [step.event.session_id for step in steps if isinstance(step, Delivered)]


async def test_a_stream_begins_with_a_bookmark_and_says_when_it_is_up_to_date(place: Place) -> None:
    first, *delivered, last = await place.until_caught_up(OLDEST)
    assert isinstance(first, Bookmark) and not first.is_caught_up
    assert isinstance(last, Bookmark) and last.read_time is not None
    assert events(delivered) == ["anna", "berta", "anna"]


async def test_a_stream_gives_what_its_filter_passes(place: Place) -> None:
    assert events(await place.until_caught_up(OLDEST, EventFilter(ANONYMOUS, session_ids=frozenset({"berta"})))) == [
        "berta"
    ]


async def test_each_token_resumes_behind_its_step(place: Place) -> None:
    steps = await place.until_caught_up(OLDEST)
    rest = [events(await place.until_caught_up(StartPosition(token=step.token))) for step in steps]
    assert rest == [["anna", "berta", "anna"], ["berta", "anna"], ["anna"], [], []]


async def test_a_stream_without_a_start_gives_what_is_new(place: Place) -> None:
    assert events(await place.until_caught_up(StartPosition())) == []


async def test_a_token_of_another_service_is_refused(place: Place) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await place.until_caught_up(StartPosition(token="not-a-token"))
    assert refused.value.reason == "RESUME_TOKEN_INVALID"
    assert [violation.field for violation in refused.value.violations] == ["resume_token"]
