"""What reading the log costs, where it begins and ends, and that nobody is in another's way; on a real Postgres."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from service.domain.caller import ANONYMOUS
from service.domain.errors import InvalidArgument, NotFound, OutOfRange
from service.domain.log_positions import LogPosition, ResumeTokenCodec
from service.domain.watch import Bookmark, Delivered, EventFilter, StartPosition
from service.eventlog.reader import MOST_BY_INDEX, PostgresLogReader, token_key
from service.ports.sessions import Changes, NewSession
from service.protocol.events import encode_payload
from service.store.database import Connection, Database
from service.store.sessions import PostgresSessions
from service.watch import service as watching_module
from service.watch import tailer as tail_module
from tests.integration.test_watching import ALL, Log, next_event

MANY = 60_000
OLDEST = StartPosition(is_oldest=True)


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    database = Database(database_url, name="test", size=10)
    await database.open()
    yield Log(database, await token_key(database))
    await database.close()


class Pinned(Database):
    """A database of one connection in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection_of_test = connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Connection]:
        yield self._connection_of_test


async def execute(log: Log, statement: str, *arguments: object) -> None:
    async with log.database.transaction() as connection:
        await connection._raw.execute(statement, *arguments)


async def fill(log: Log) -> None:
    """Many events of 300 sessions, in 600 transactions' worth of places."""
    await execute(
        log,
        "INSERT INTO zap.event (xid, session_id, sequence, epoch, frame, time, type, payload)"
        " SELECT (1 + n / 100)::text::xid8, 'session-' || n % 300, 1 + n / 300, 1, 0, now(), 'RECEIPT', ''"
        " FROM generate_series(0, $1::int - 1) n",
        MANY,
    )
    await execute(log, "INSERT INTO zap.event_sequence SELECT 'session-' || n, 200 FROM generate_series(0, 1299) n")
    await execute(log, "ANALYZE zap.event")


@pytest.mark.parametrize("sessions", [0, 1, 10, 1000], ids=["all", "one", "ten", "a thousand"])
@pytest.mark.parametrize(
    "after", [LogPosition(0), LogPosition(550), LogPosition(10**9)], ids=["start", "near the end", "end"]
)
async def test_a_page_costs_what_is_in_it_and_not_what_is_in_the_log(
    log: Log, sessions: int, after: LogPosition
) -> None:
    await fill(log)
    wanted = EventFilter(ANONYMOUS, session_ids=frozenset(f"session-{number}" for number in range(sessions)))
    async with log.database.transaction() as connection:
        reader = PostgresLogReader(Pinned(connection))
        # More often than Postgres makes plans for what it was asked for: then it has one for everything.
        for _ in range(8):
            assert await reader.read(after, wanted, 100) is not None
        (cost,) = await connection._raw.fetch(
            "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'event'"
        )
    assert cost["seq_scan"] == 0
    # Those who name many sessions cost what those cost who name none.
    most = 100 * sessions if 0 < sessions <= MOST_BY_INDEX else 100
    # Beside the pages a few for each look: the newest events by id and by place, and what is below them in an index.
    assert cost["idx_tup_fetch"] <= 8 * (most + 10)


async def test_of_a_thousand_sessions_everything_comes_in_the_order_of_places(log: Log) -> None:
    await fill(log)
    wanted = EventFilter(ANONYMOUS, session_ids=frozenset(f"session-{number}" for number in range(290, 1290)))
    events = await log.collect(2000, OLDEST, wanted)
    assert len(events) == MANY // 300 * 10
    assert events == sorted(events, key=lambda event: event.position)
    assert {event.session_id for event in events} == {f"session-{number}" for number in range(290, 300)}


async def test_large_events_come_in_pages_that_fit_into_memory(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.eventlog.reader.PAGE_BYTES", 1000)
    async with log.database.transaction() as connection:
        await connection._raw.execute(
            "INSERT INTO zap.event (session_id, sequence, epoch, frame, time, type, payload)"
            " SELECT 's', n, 1, 0, now(), 'RECEIPT', convert_to(repeat('x', 400 * n), 'UTF8')"
            " FROM generate_series(1, 6) n"
        )
    place, pages = LogPosition(0), []
    while (page := await log.reader.read(place, ALL, 100)) is not None and not page.is_last:
        place = page.upto
        pages.append([event.sequence for event in page.events])
    assert page is not None
    # One at least, and those that begin within the limit.
    assert [*pages, [event.sequence for event in page.events]] == [[1, 2], [3], [4], [5], [6]]


async def refusal(log: Log, start: StartPosition, wanted: EventFilter = ALL) -> Exception:
    """What a stream that cannot begin says."""
    with pytest.raises((InvalidArgument, OutOfRange, NotFound)) as caught:
        await anext(log.watching.watch(wanted, start))
    return caught.value


async def test_a_token_that_is_not_ours_is_invalid_whatever_it_looks_like(log: Log) -> None:
    ours = log.tokens.write(LogPosition(1, 1))
    for token in ("x", ours[:-1], ours + "=", ResumeTokenCodec(b"of another database").write(LogPosition(1, 1))):
        error = await refusal(log, StartPosition(token))
        assert isinstance(error, InvalidArgument)
        assert error.reason == "RESUME_TOKEN_INVALID"
        assert [violation.field for violation in error.violations] == ["resume_token"]


async def test_a_token_of_a_moment_that_never_was_is_ahead_and_told_where_to_go_on(log: Log) -> None:
    await log.append("session-0", 1, 2)
    (event, _) = await log.collect(2, OLDEST)
    frames = itertools.count(3)
    for place in (
        LogPosition(10**12),
        LogPosition(event.position.xid, event.position.id + 1000),
        LogPosition(event.position.xid - 1, event.position.id),
    ):
        error = await refusal(log, StartPosition(log.tokens.write(place)))
        assert isinstance(error, OutOfRange)
        assert error.reason == "RESUME_TOKEN_AHEAD"
        stream = log.watching.watch(ALL, StartPosition(error.metadata["resume_token"]))
        async with aclosing(stream):
            assert isinstance(await anext(stream), Bookmark)
            await log.append("session-0", next(frames))
            assert (await next_event(stream)).sequence > 2


async def test_a_token_whose_events_were_deleted_is_expired_and_told_the_oldest(log: Log) -> None:
    await log.append("session-0", 1)
    await log.append("session-0", 2)
    await log.append("session-0", 3)
    first, second, third = await log.collect(3, OLDEST)
    behind = log.watching.watch(ALL, StartPosition(log.tokens.write(first.position)))
    assert isinstance(await anext(behind), Bookmark)
    await execute(
        log,
        "WITH moved AS (UPDATE zap.event_log SET deleted_xid = $1::text::xid8, deleted_id = $2)"
        " DELETE FROM zap.event WHERE id <= $2",
        str(second.position.xid),
        second.position.id,
    )
    errors = [await refusal(log, StartPosition(log.tokens.write(first.position)))]
    # One that stands already is told as well, and not led over the gap.
    with pytest.raises(OutOfRange) as caught:
        await next_event(behind)
    errors.append(caught.value)
    for error in errors:
        assert isinstance(error, OutOfRange)
        assert error.reason == "RESUME_TOKEN_EXPIRED"
        assert await log.collect(1, StartPosition(error.metadata["resume_token"])) == [third]
    assert await log.collect(1, StartPosition(log.tokens.write(second.position))) == [third], "it misses nothing"


async def test_a_session_that_nobody_knows_is_not_found_and_a_deleted_one_is_watched_on(log: Log) -> None:
    await log.append("deleted", 1)
    error = await refusal(log, OLDEST, EventFilter(ANONYMOUS, session_ids=frozenset({"deleted", "nobody"})))
    assert isinstance(error, NotFound)
    assert error.metadata == {"session_id": "nobody"}
    assert len(await log.collect(1, OLDEST, EventFilter(ANONYMOUS, session_ids=frozenset({"deleted"})))) == 1


async def test_users_and_labels_are_those_that_sessions_have_when_an_event_is_read(log: Log) -> None:
    sessions = PostgresSessions(ANONYMOUS, log.database, encode_payload)
    for name, user, team in (("a", "ada", "red"), ("b", "bob", "red"), ("c", "ada", "blue")):
        await sessions.create(NewSession(name, "", user, {"team": team, "x": "y"}, "", ""))
        await log.append(name, 1)
    wanted = EventFilter(ANONYMOUS, user_id="ada", labels={"team": "red"})
    assert [event.session_id for event in await log.collect(1, OLDEST, wanted)] == ["a"]
    async with aclosing(log.watching.watch(wanted, OLDEST)) as steps:
        assert (await next_event(steps)).session_id == "a"
        # It was read before: from now on c's events are wanted, and a's are not.
        await sessions.update("c", Changes(labels={"team": "red"}), "")
        await sessions.update("a", Changes(user_id="carl"), "")
        await log.append("a", 2)
        await log.append("c", 2)
        following = await next_event(steps)
        assert (following.session_id, following.sequence) == ("c", 2)


async def test_who_does_not_take_what_comes_keeps_nobody_and_misses_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "SUBSCRIPTION_EVENTS", 5)
    async with (
        aclosing(log.watching.watch(ALL, StartPosition())) as idle,
        aclosing(log.watching.watch(ALL, StartPosition())) as quick,
    ):
        for steps in (idle, quick):
            while not (isinstance(step := await anext(steps), Bookmark) and step.is_caught_up):
                pass
        for number in range(1, 51):
            await log.append("session-0", number)
            log.hub.wake("*")
            assert (await next_event(quick)).sequence == number
        assert [(await next_event(idle)).sequence for _ in range(50)] == list(range(1, 51))
        await log.append("session-0", 51)
        assert (await next_event(idle)).sequence == 51
        assert (await next_event(quick)).sequence == 51


def tails() -> list[asyncio.Task[object]]:
    """Those who read the end of the log."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "tail"]


async def test_nobody_reads_when_nobody_watches(log: Log) -> None:
    for _ in range(3):
        async with aclosing(log.watching.watch(ALL, StartPosition())) as steps:
            while not (isinstance(step := await anext(steps), Bookmark) and step.is_caught_up):
                pass
            assert step.read_time is not None
            assert len(tails()) == 1
        await asyncio.sleep(0)
        assert not tails()
    assert not log.hub._listeners


async def test_bookmarks_of_an_idle_stream_move_on_with_what_it_does_not_want(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "BOOKMARK_INTERVAL_S", 0.2)
    wanted = EventFilter(ANONYMOUS, types=frozenset({"PAIRING"}))
    async with aclosing(log.watching.watch(wanted, StartPosition())) as steps:
        while not (isinstance(step := await anext(steps), Bookmark) and step.is_caught_up):
            pass
        await log.append("session-0", 1)
        (unwanted,) = await log.collect(1, OLDEST)
        marks = []
        async with asyncio.timeout(20):
            async for mark in steps:
                assert not isinstance(mark, Delivered)
                marks.append(mark)
                if log.tokens.read(mark.token) >= unwanted.position:
                    break
        assert all(mark.is_caught_up and mark.read_time for mark in marks)
        places = [log.tokens.read(mark.token) for mark in marks]
        assert places == sorted(places)
