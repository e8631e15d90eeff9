"""What is appended to the log, on a real Postgres: each frame and each origin once, in one transaction and no scan."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from service.domain.events import Event, NewEvent
from service.domain.lease import Lease
from service.domain.observations import Happening
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.events import PostgresEventLog
from service.store.queries import statement
from tests.e2e.sql import Sql
from tests.round_trips import RoundTrips

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def line(database_url: str) -> AsyncIterator[RoundTrips]:
    async with RoundTrips(database_url) as running:
        yield running


@pytest.fixture
async def log(line: RoundTrips) -> AsyncIterator[PostgresEventLog]:
    database = Database(line.url, name="test")
    await database.open()
    yield PostgresEventLog(database, encode_payload, fail)
    await database.close()


def fail(session_id: str, event: NewEvent, error: Exception) -> None:
    raise error


def event(frame: int, origin: str = "", text: str = "") -> NewEvent:
    """`origin`: in words; none if it is empty."""
    payload = Happening("MESSAGE_RECEIVED", (text or f"text {frame}").encode())
    return NewEvent(payload, NOW, frame, f"{origin:16.16}".encode() if origin else b"")


def lease(epoch: int, session_id: str = "anna") -> Lease:
    return Lease(session_id, epoch, uuid.UUID(int=0))


def texts(events: Sequence[Event]) -> list[tuple[int, str]]:
    return [(each.sequence, each.payload.encoded.decode()) for each in events if isinstance(each.payload, Happening)]


async def test_what_comes_again_under_another_number_or_epoch_is_one_event(log: PostgresEventLog) -> None:
    assert texts(await log.append(lease(1), [event(1, "a"), event(2, "b")])) == [(1, "text 1"), (2, "text 2")]
    # In one process, after the library has reconnected; and in the next one, beside what is new.
    assert await log.append(lease(1), [event(3, "b")]) == []
    again = [event(1, "a"), event(2, "c"), event(3, "b"), event(4, "d")]
    assert texts(await log.append(lease(2), again)) == [(3, "text 2"), (4, "text 4")]


async def test_what_comes_twice_in_one_batch_is_one_event(log: PostgresEventLog) -> None:
    batch = [event(1, "a"), event(2, "b"), event(3, "a", "again"), event(4, "c")]
    assert texts(await log.append(lease(1), batch)) == [(1, "text 1"), (2, "text 2"), (3, "text 4")]


async def test_what_comes_to_two_sessions_is_an_event_of_each(log: PostgresEventLog) -> None:
    for session_id in ("anna", "bern"):
        assert texts(await log.append(lease(1, session_id), [event(1, "a")])) == [(1, "text 1")]


async def test_what_has_no_origin_is_told_apart_by_its_frame_alone(log: PostgresEventLog) -> None:
    batch = [event(1, text="same"), event(2, text="same")]
    assert texts(await log.append(lease(1), batch)) == [(1, "same"), (2, "same")]
    assert await log.append(lease(1), batch) == []
    assert texts(await log.append(lease(2), batch)) == [(3, "same"), (4, "same")]


async def test_two_processes_that_write_the_same_at_once_write_it_once(log: PostgresEventLog, sql: Sql) -> None:
    batches = [[event(frame, f"origin {frame}") for frame in range(first, first + 20)] for first in range(1, 200, 10)]
    written = await asyncio.gather(
        *(log.append(lease(epoch), batch) for epoch in (1, 2, 3) for batch in batches),
    )
    assert sum(map(len, written)) == 210
    rows = await sql.fetch("SELECT sequence, origin FROM zap.event ORDER BY xid, id")
    assert [row["sequence"] for row in rows] == list(range(1, 211))
    assert len({row["origin"] for row in rows}) == 210


async def test_a_batch_is_one_transaction_of_four_round_trips(
    log: PostgresEventLog, line: RoundTrips, sql: Sql
) -> None:
    # What is said once for each connection, and for each statement.
    await log.append(lease(1), [event(1, "warm up")])
    before = line.count
    await log.append(lease(1), [event(frame, f"origin {frame}") for frame in range(2, 202)])
    assert line.count - before == 4
    assert await sql.fetchval("SELECT count(DISTINCT xid) FROM zap.event WHERE frame > 1") == 1


async def test_nothing_is_written_of_what_is_known(log: PostgresEventLog, sql: Sql) -> None:
    await create(sql)
    batch = [event(1, "a"), event(2, "b")]
    await log.append(lease(1), batch)
    rows = "SELECT ctid, xmin, last_sequence FROM zap.event_sequence"
    sessions = "SELECT ctid, xmin, last_inbound_at FROM zap.session"
    before = [*await sql.fetch(rows), *await sql.fetch(sessions)]
    assert await log.append(lease(2), batch) == []
    assert [*await sql.fetch(rows), *await sql.fetch(sessions)] == before


async def test_what_comes_in_is_evidence_and_never_of_before(log: PostgresEventLog, sql: Sql) -> None:
    await create(sql)
    late = NewEvent(Happening("RECEIPT", b""), NOW - timedelta(hours=1), 2)
    for new in (event(1), late):
        await log.append(lease(1), [new])
        assert await sql.fetchval("SELECT last_inbound_at FROM zap.session") == NOW
    assert await sql.fetchval("SELECT count(*) FROM zap.event") == 2


async def test_a_time_to_come_is_no_evidence_of_more_than_now(log: PostgresEventLog, sql: Sql) -> None:
    await create(sql)
    absurd = NewEvent(Happening("RECEIPT", b""), NOW + timedelta(days=365_000), 1)
    assert len(await log.append(lease(1), [absurd])) == 1
    assert await sql.fetchval("SELECT last_inbound_at <= clock_timestamp() FROM zap.session")


async def test_what_came_for_a_session_that_was_deleted_is_nobody_s(log: PostgresEventLog, sql: Sql) -> None:
    await create(sql, former_epoch=3)
    assert await log.append(lease(3), [event(1, "a")]) == []
    assert texts(await log.append(lease(4), [event(1, "a")])) == [(1, "text 1")]


async def test_what_is_of_the_moment_has_no_frame_and_comes_as_often_as_it_does(
    log: PostgresEventLog, sql: Sql
) -> None:
    batch = [event(0, text="typing"), event(1), event(0, text="typing")]
    assert texts(await log.append(lease(1), batch)) == [(1, "typing"), (2, "text 1"), (3, "typing")]
    await create(sql, former_epoch=1)
    assert await log.append(lease(1), [event(0, text="typing")]) == []


async def create(sql: Sql, former_epoch: int = 0) -> None:
    await sql.execute(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch)"
        " VALUES ('anna', '', '', '{}', '', '', $1)",
        former_epoch,
    )


@pytest.mark.parametrize("is_analyzed", [True, False])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_large_log_is_not_read_to_find_what_is_known(sql: Sql, mode: str, is_analyzed: bool) -> None:
    """One session has nearly all of it: whoever looks by the session alone reads it all."""
    await sql.execute(
        "INSERT INTO zap.event (session_id, epoch, sequence, frame, time, type, payload, origin)"
        " SELECT CASE WHEN n % 100 = 0 THEN 'bern' ELSE 'anna' END, 1, n, n, now(), '', '',"
        " substring(sha256(n::text::bytea) for 16) FROM generate_series(1, 50000) n"
    )
    await sql.execute("INSERT INTO zap.event_sequence VALUES ('anna', 50000)")
    if is_analyzed:
        await sql.execute("ANALYZE zap.event")
    await sql.execute(f"SET plan_cache_mode = {mode}")
    types = "text, bigint, bigint[], timestamptz[], text[], bytea[], bytea[], boolean"
    await sql.execute(f"PREPARE append ({types}) AS {statement('append_events')}")
    numbers = range(49_901, 50_101)
    origins = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in numbers]
    offered = (numbers, ["now"] * 200, ["T"] * 200, [r"\\x00"] * 200, [rf"\\x{origin}" for origin in origins])
    arrays = ", ".join("'{" + ",".join(map(str, column)) + "}'" for column in offered)
    explained = await sql.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE append ('anna', 1, {arrays}, true)"
    )
    plan = json.loads(explained)[0]["Plan"]
    # Two lookups for each of 200, in indexes of three levels, and what is written of the hundred that are new.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200 * 2 * 4 + 102 * 40
    assert await sql.fetchval("SELECT count(*) FROM zap.event WHERE frame > 50000") == 100
