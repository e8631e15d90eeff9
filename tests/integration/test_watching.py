"""The event log read while it is written, on a real Postgres: nothing is skipped, and nobody's pace is another's."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from service.bus.hub import LOG_TOPIC, WakeupHub
from service.domain.caller import ANONYMOUS
from service.domain.errors import Unavailable
from service.domain.events import NewEvent
from service.domain.log_positions import InvalidToken, LogPosition, ResumeTokenCodec
from service.domain.observations import InboundEvent
from service.domain.watch import Bookmark, Delivered, EventFilter, LoggedEvent, StartPosition, Step
from service.eventlog.reader import PostgresLogReader, token_key
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.event_rows import append, lock_log
from service.store.migrate import migrate
from service.watch.service import WatchService
from service.watch.tailer import LogTailer
from tests.chaos.postgres import Postgres
from tests.log_writer import append_events, message
from zap.v1 import event_pb2 as pb

ALL = EventFilter(ANONYMOUS)
SESSIONS = tuple(f"session-{number}" for number in range(4))


class _Failed(Exception):
    """A writer's transaction is rolled back."""


class Log:
    """A log on one database, with all that reads it."""

    def __init__(self, database: Database, key: bytes) -> None:
        self.database = database
        self.hub = WakeupHub()
        self.reader = PostgresLogReader(database)
        self.tokens = ResumeTokenCodec(key)
        self.watching = WatchService(self.reader, LogTailer(self.reader.read, self.hub), self.tokens, max_lag_s=60.0)

    async def append(self, session_id: str, *numbers: int) -> None:
        await append_events(self.database, session_id, [message(number) for number in numbers])

    async def append_slowly(self, session_id: str, number: int, delay: float, *, fails: bool = False) -> None:
        """Append some time after it has its number, and commit later; or roll back, and leave an id that nobody has.

        So places have neither the order of ids nor that of commits.
        """
        with suppress(_Failed):
            async with self.database.transaction() as connection:
                await lock_log(connection, session_id)
                await connection._raw.execute("SELECT pg_current_xact_id()")
                await asyncio.sleep(delay / 2)
                await append(connection, encode_payload, session_id, 1, [message(number)])
                await asyncio.sleep(delay / 2)
                if fails:
                    raise _Failed

    async def collect(self, count: int, start: StartPosition, wanted: EventFilter = ALL) -> list[LoggedEvent]:
        """The next `count` events of a stream of its own."""
        found: list[LoggedEvent] = []
        async with asyncio.timeout(60), aclosing(self.watching.watch(wanted, start)) as steps:
            async for step in steps:
                if isinstance(step, Delivered):
                    found.append(step.event)
                if len(found) == count:
                    break
        return found


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    database = Database(database_url, name="test", size=20)
    await database.open()
    yield Log(database, await token_key(database))
    await database.close()


def in_order(events: list[LoggedEvent]) -> bool:
    """Each session's sequences are 1, 2, 3, …"""
    places = {session_id: [e.sequence for e in events if e.session_id == session_id] for session_id in SESSIONS}
    return all(numbers == list(range(1, len(numbers) + 1)) for numbers in places.values())


async def next_event(steps: AsyncIterator[Step]) -> LoggedEvent:
    async with asyncio.timeout(10):
        async for step in steps:
            if isinstance(step, Delivered):
                return step.event
    raise AssertionError("the stream ended")


async def test_of_eight_writers_with_delayed_commits_none_is_skipped(log: Log) -> None:
    chance = random.Random(7)

    async def write(writer: int) -> None:
        for number in range(writer * 1000 + 1, writer * 1000 + 41):
            session_id, delay = chance.choice(SESSIONS), chance.random() * 0.02
            await log.append_slowly(session_id, number, delay, fails=number % 5 == 0)
            log.hub.wake(LOG_TOPIC)

    count = 8 * 40 * 4 // 5
    early = asyncio.create_task(log.collect(count, StartPosition(is_oldest=True)))
    await asyncio.gather(*(write(writer) for writer in range(8)))
    late = await log.collect(count, StartPosition(is_oldest=True))
    # What a tail by ids alone would get wrong happened.
    assert [event.position.id for event in late] != sorted(event.position.id for event in late)
    for events in (await early, late):
        assert len({event.position for event in events}) == count
        assert events == sorted(events, key=lambda event: event.position)
        assert in_order(events)


async def test_an_open_transaction_elsewhere_holds_the_tail_and_no_longer(log: Log, database_url: str) -> None:
    elsewhere = await asyncpg.connect(database_url.rpartition("/")[0] + "/postgres")
    try:
        held = elsewhere.transaction()
        await held.start()
        await elsewhere.execute("CREATE TABLE held (number int)")
        async with aclosing(log.watching.watch(ALL, StartPosition())) as steps:
            assert isinstance(await anext(steps), Bookmark)
            await log.append("session-0", 1)
            page = await log.reader.read(LogPosition(0), ALL, 10)
            assert page is not None
            assert page.is_held
            assert not page.events
            coming = asyncio.create_task(next_event(steps))
            await held.rollback()
            assert (await coming).sequence == 1
    finally:
        await elsewhere.close()


async def test_a_stream_resumes_after_the_last_response(log: Log) -> None:
    await log.append("session-0", 1, 2, 3)
    tokens = []
    async with aclosing(log.watching.watch(ALL, StartPosition(is_oldest=True))) as steps:
        async for step in steps:
            tokens.append((step.token, isinstance(step, Delivered)))
            if isinstance(step, Bookmark) and step.is_caught_up:
                break
    assert [is_event for _, is_event in tokens] == [False, True, True, True, False]
    await log.append("session-0", 4)
    following = [
        [e.sequence for e in await log.collect(n, StartPosition(t))]
        for (t, _), n in zip(tokens, (4, 3, 2, 1, 1), strict=True)
    ]
    assert following == [[1, 2, 3, 4], [2, 3, 4], [3, 4], [4], [4]]


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (EventFilter(ANONYMOUS, session_ids=frozenset({"session-1"})), [("session-1", 1), ("session-1", 2)]),
        (EventFilter(ANONYMOUS, types=frozenset({"RECEIPT"})), [("session-0", 2), ("session-0", 3)]),
        (EventFilter(ANONYMOUS, session_ids=frozenset({"session-1"}), types=frozenset({"RECEIPT"})), []),
    ],
)
async def test_a_filter_leaves_out_what_is_there_and_what_comes(
    log: Log, wanted: EventFilter, places: list[tuple[str, int]]
) -> None:
    async def append_receipt() -> None:
        payload = InboundEvent("RECEIPT", pb.Event(type=pb.Event.TYPE_RECEIPT).SerializeToString())
        await append_events(log.database, "session-0", [NewEvent(payload, datetime.now(UTC))])

    await log.append("session-0", 1)
    await append_receipt()
    await log.append("session-1", 1)
    found = []
    async with asyncio.timeout(20), aclosing(log.watching.watch(wanted, StartPosition(is_oldest=True))) as steps:
        async for step in steps:
            if isinstance(step, Delivered):
                found.append((step.event.session_id, step.event.sequence))
            elif step.is_caught_up and found != places:
                await append_receipt()
                await log.append("session-1", 2)
            if found == places and isinstance(step, Bookmark):
                break
            if len(found) == len(places):
                break
    assert found == places


async def test_a_log_that_was_copied_from_another_server_comes_before_what_is_new(log: Log, database_url: str) -> None:
    await log.append("session-0", 1, 2)
    await log.append("session-1", 1)
    token = log.tokens.write(LogPosition(5, 1))
    async with log.database.transaction() as connection:
        await connection._raw.execute("UPDATE zap.event SET xid = (xid::text::bigint + 10000000)::text::xid8")
    await migrate(database_url)
    await log.append("session-0", 3)
    events = await log.collect(4, StartPosition(is_oldest=True))
    assert [(e.session_id, e.sequence) for e in events] == [
        ("session-0", 1),
        ("session-0", 2),
        ("session-1", 1),
        ("session-0", 3),
    ]
    with pytest.raises(InvalidToken):
        ResumeTokenCodec(await token_key(log.database)).read(token)
    # It is settled once: nothing more is done to it.
    key = await token_key(log.database)
    await migrate(database_url)
    assert await token_key(log.database) == key


async def test_numbers_that_postgres_gives_out_again_after_a_crash_are_nobody_s_place(server_folder: Path) -> None:
    async with Postgres(server_folder) as server:
        await migrate(server.url)
        database = Database(server.url, name="test")
        await database.open()
        log = Log(database, await token_key(database))
        await log.append("session-0", 1)
        await use_up_numbers(server.url)
        async with aclosing(log.watching.watch(ALL, StartPosition())) as steps:
            token = (await anext(steps)).token
            await server.stop(signal.SIGQUIT)
            await server.start()
            await append_when_it_answers(log, "session-0", 2)
            assert (await next_event(steps)).sequence == 2
        assert [event.sequence for event in await log.collect(1, StartPosition(token))] == [2]
        await database.close()


async def use_up_numbers(url: str) -> None:
    """Of transactions that leave nothing on the disk: a crash forgets that they were."""
    connection = await asyncpg.connect(url)
    for _ in range(20):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT pg_current_xact_id()")
        await transaction.rollback()
    await connection.close()


async def append_when_it_answers(log: Log, session_id: str, number: int) -> None:
    """Connections of before a crash fail once each."""
    async with asyncio.timeout(10):
        while True:
            with suppress(Unavailable):
                await log.append(session_id, number)
                return
            await asyncio.sleep(0.05)
