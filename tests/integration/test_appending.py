"""What comes in is appended on a real Postgres: by the owner alone, each origin once, in one round trip and no scan."""

import asyncio
import hashlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from service.domain.caller import ANONYMOUS
from service.domain.errors import LeaseLost, NotFound, ZapError
from service.domain.events import Event, NewEvent
from service.domain.lease import Announcement, Lease, Node
from service.domain.observations import DeliveryReport, InboundEvent
from service.eventlog.inbound import PostgresEventLog
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.event_rows import columns
from service.store.leases import PostgresLeases
from service.store.messages import PostgresMessages
from service.store.queries import statement
from tests.e2e.sql import Sql
from tests.round_trips import RoundTrips
from tests.transaction_pooler import TransactionPooler

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NODE = uuid.UUID(int=1)
TTL = 30.0


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database_url)
    await create(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def line(database_url: str) -> AsyncIterator[RoundTrips]:
    async with RoundTrips(database_url) as running:
        yield running


@pytest.fixture
async def database(line: RoundTrips) -> AsyncIterator[Database]:
    database = Database(line.url, name="test")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def log(database: Database) -> PostgresEventLog:
    return PostgresEventLog(database, encode_payload, fail)


def fail(session_id: str, event: NewEvent, error: Exception) -> None:
    raise error


async def create(sql: Sql, session_id: str = "anna") -> None:
    """A session, and NODE as its owner under epoch 1."""
    await sql.execute(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch)"
        " VALUES ($1, '', '', '{}', '', '', 0)",
        session_id,
    )
    await sql.execute(
        "INSERT INTO zap.lease (session_id, epoch, incarnation, renewed_at, expires_at)"
        " VALUES ($1, 1, $2, now(), now() + interval '1 h')",
        session_id,
        NODE,
    )


async def begin(sql: Sql, epoch: int) -> None:
    await sql.execute("UPDATE zap.lease SET epoch = $1 WHERE session_id = 'anna'", epoch)


def event(number: int, origin: str = "", text: str = "") -> NewEvent:
    """`origin`: in words; none if it is empty."""
    payload = InboundEvent("MESSAGE_RECEIVED", (text or f"text {number}").encode())
    return NewEvent(payload, NOW, f"{origin:16.16}".encode() if origin else b"")


def receipt(kind: str, *message_ids: str, origin: bytes = b"", device: tuple[str, ...] = ()) -> NewEvent:
    return NewEvent(InboundEvent("RECEIPT", b"", DeliveryReport(message_ids, kind, device)), NOW, origin)


def lease(epoch: int = 1, session_id: str = "anna", incarnation: uuid.UUID = NODE) -> Lease:
    return Lease(session_id, epoch, incarnation)


async def append(log: PostgresEventLog, lease: Lease, events: Sequence[NewEvent]) -> list[tuple[int, str]]:
    """Sequences and texts of what is new."""
    return texts((await log.append(lease, events)).events)


def texts(events: Sequence[Event]) -> list[tuple[int, str]]:
    return [(each.sequence, each.payload.encoded.decode()) for each in events if isinstance(each.payload, InboundEvent)]


# --- what is new ------------------------------------------------------------------------------------------------


async def test_what_comes_again_is_one_event_under_whatever_epoch(log: PostgresEventLog, sql: Sql) -> None:
    assert await append(log, lease(), [event(1, "a"), event(2, "b")]) == [(1, "text 1"), (2, "text 2")]
    # In one process, after the library has reconnected; and in the next one, beside what is new.
    assert await append(log, lease(), [event(3, "b")]) == []
    await begin(sql, 2)
    again = [event(1, "a"), event(2, "c"), event(3, "b"), event(4, "d")]
    assert await append(log, lease(2), again) == [(3, "text 2"), (4, "text 4")]


async def test_what_comes_twice_in_one_batch_is_one_event(log: PostgresEventLog, sql: Sql) -> None:
    batch = [event(1, "a"), event(2, "b"), event(3, "a", "again"), event(4, "c")]
    assert await append(log, lease(), batch) == [(1, "text 1"), (2, "text 2"), (3, "text 4")]


async def test_what_comes_to_two_sessions_is_an_event_of_each(log: PostgresEventLog, sql: Sql) -> None:
    await create(sql, "bern")
    for session_id in ("anna", "bern"):
        assert await append(log, lease(session_id=session_id), [event(1, "a")]) == [(1, "text 1")]


async def test_what_has_no_origin_is_new_each_time(log: PostgresEventLog, sql: Sql) -> None:
    batch = [event(0, text="typing"), event(1, "a"), event(0, text="typing")]
    assert await append(log, lease(), batch) == [(1, "typing"), (2, "text 1"), (3, "typing")]
    assert await append(log, lease(), batch) == [(4, "typing"), (5, "typing")]


async def test_writers_at_once_write_each_origin_once_and_leave_no_gap(log: PostgresEventLog, sql: Sql) -> None:
    batches = [[event(each, f"origin {each}") for each in range(first, first + 20)] for first in range(1, 200, 10)]
    written = await asyncio.gather(*(append(log, lease(), batch) for _ in range(3) for batch in batches))
    assert sum(map(len, written)) == 210
    rows = await sql.fetch("SELECT sequence, origin FROM zap.event ORDER BY xid, id")
    assert [row["sequence"] for row in rows] == list(range(1, 211))
    assert len({row["origin"] for row in rows}) == 210


async def test_nothing_is_written_of_what_is_known(log: PostgresEventLog, sql: Sql) -> None:
    batch = [event(1, "a"), event(2, "b")]
    await log.append(lease(), batch)
    rows = "SELECT ctid, xmin, last_sequence FROM zap.event_sequence"
    sessions = "SELECT ctid, xmin, last_inbound_at FROM zap.session"
    before = [*await sql.fetch(rows), *await sql.fetch(sessions)]
    assert await append(log, lease(), batch) == []
    assert [*await sql.fetch(rows), *await sql.fetch(sessions)] == before


async def test_an_event_is_returned_with_its_place(log: PostgresEventLog, sql: Sql) -> None:
    (appended,) = (await log.append(lease(), [event(1, "a")])).events
    row = await sql.fetchrow("SELECT id, sequence, epoch, frame, xid::text::bigint AS xid FROM zap.event")
    assert row is not None
    assert (appended.id, appended.sequence) == (row["id"], row["sequence"])
    assert (row["epoch"], row["frame"]) == (1, 0)
    # Who resumes at the horizon gets this event again.
    assert 0 < appended.resume_from.xid <= row["xid"]


async def test_what_comes_in_is_evidence_and_never_of_before(log: PostgresEventLog, sql: Sql) -> None:
    late = NewEvent(InboundEvent("RECEIPT", b""), NOW - timedelta(hours=1))
    for new in (event(1), late):
        await log.append(lease(), [new])
        assert await sql.fetchval("SELECT last_inbound_at FROM zap.session") == NOW
    assert await sql.fetchval("SELECT count(*) FROM zap.event") == 2


async def test_a_time_to_come_is_no_evidence_of_more_than_now(log: PostgresEventLog, sql: Sql) -> None:
    absurd = NewEvent(InboundEvent("RECEIPT", b""), NOW + timedelta(days=365_000))
    assert len((await log.append(lease(), [absurd])).events) == 1
    assert await sql.fetchval("SELECT last_inbound_at <= clock_timestamp() FROM zap.session")


# --- receipts ---------------------------------------------------------------------------------------------------


async def send(sql: Sql, **states: str) -> None:
    """Messages of these ids."""
    for message_id, state in states.items():
        await sql.execute(
            "INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch, state, message_id)"
            " VALUES ('anna', $1, '', '', 1, $2, $1)",
            message_id,
            state,
        )


async def states(sql: Sql) -> dict[str, str]:
    return {row["message_id"]: row["state"] for row in await sql.fetch("SELECT message_id, state FROM zap.message")}


async def test_receipts_bring_messages_further_and_never_back(log: PostgresEventLog, sql: Sql) -> None:
    await send(sql, one="SENT", two="SENT", three="SENT", four="READ", five="FAILED")
    batch = [
        receipt("READ", "one", "no\0body"),
        receipt("DELIVERED", "one", "two", "four", "five", "nobody"),
        receipt("PLAYED", "two"),
    ]
    appended = await log.append(lease(), batch)
    assert len(appended.events) == 3
    assert set(appended.message_ids) == {"one", "two"}
    now = {"one": "READ", "two": "READ", "three": "SENT", "four": "READ", "five": "FAILED"}
    assert await states(sql) == now
    assert (await log.append(lease(), batch)).message_ids == ()
    assert await states(sql) == now


async def test_a_receipt_that_comes_again_is_applied_to_what_was_sent_meanwhile(
    log: PostgresEventLog, sql: Sql
) -> None:
    told = receipt("DELIVERED", "one", origin=b"x" * 16)
    assert (await log.append(lease(), [told])).message_ids == ()
    await send(sql, one="SENT")
    again = await log.append(lease(), [told])
    assert (again.events, again.message_ids) == ((), ("one",))


PHONE, WEB = ("111@lid", "49111@s.whatsapp.net"), ("111:2@lid", "49111:2@s.whatsapp.net")
"""Two devices of one person, each by its two addresses."""


async def unreadable(log: PostgresEventLog, database: Database, *receipts: NewEvent) -> list[tuple[str, bool]]:
    """Append receipts, and return the messages that a device cannot read, and whether it could not be sent them."""
    await log.append(lease(), receipts)
    messages = [await PostgresMessages(ANONYMOUS, database).find("anna", name, None) for name in ("one", "two")]
    found = [message for message in messages if message is not None and message.unreadable_since is not None]
    assert all(message.unreadable_since == NOW for message in found)
    return [(message.message_id, message.is_resend_failed) for message in found]


async def test_a_message_is_unreadable_from_the_first_request_on_until_each_device_that_asked_has_confirmed(
    log: PostgresEventLog, database: Database, sql: Sql
) -> None:
    await send(sql, one="SENT", two="SENT")
    assert await unreadable(log, database, receipt("DELIVERED", "one", "two", device=PHONE)) == []
    assert await unreadable(log, database, receipt("RETRY", "one", "nobody", device=WEB)) == [("one", False)]
    later = NewEvent(receipt("RETRY", "one", device=("222@lid",)).payload, NOW + timedelta(seconds=1))
    assert await unreadable(log, database, later, receipt("RETRY", "one", device=WEB)) == [("one", False)]
    assert await unreadable(log, database, receipt("READ", "one", device=PHONE)) == [("one", False)]
    assert await unreadable(log, database, receipt("DELIVERED", "two", device=WEB)) == [("one", False)]
    assert await unreadable(log, database, receipt("DELIVERED", "one", device=("222@lid",))) == [("one", False)]
    # Under its other address.
    assert await unreadable(log, database, receipt("READ", "one", device=WEB[::-1])) == []


@pytest.mark.parametrize("is_told_first", [True, False])
async def test_a_resend_that_failed_is_remembered_whenever_it_is_told(
    log: PostgresEventLog, database: Database, sql: Sql, is_told_first: bool
) -> None:
    await send(sql, one="SENT", two="SENT")
    told = [receipt("RETRY", "one", device=WEB), receipt("RESEND_FAILED", "one", device=WEB[:1])]
    for each in reversed(told) if is_told_first else told:
        await log.append(lease(), [each])
    # Asked for once more, it may be answered: until the device has it, nothing says so.
    assert await unreadable(log, database, told[0]) == [("one", True)]
    assert await unreadable(log, database, *told[::-1], receipt("RETRY", "two", device=PHONE)) == [
        ("one", True),
        ("two", False),
    ]
    assert await unreadable(log, database, *told, receipt("DELIVERED", "one", device=WEB)) == [("two", False)]


async def test_the_account_s_own_devices_do_not_count(log: PostgresEventLog, database: Database, sql: Sql) -> None:
    await send(sql, one="SENT")
    await sql.execute("UPDATE zap.session SET account_jid = '49999:7@s.whatsapp.net', account_lid = '999:7@lid'")
    for own in ("49999@s.whatsapp.net", "999@lid", "999:3@lid"):
        asked, failed = (receipt(kind, "one", device=(own,)) for kind in ("RETRY", "RESEND_FAILED"))
        assert await unreadable(log, database, asked, failed) == []
    assert await unreadable(log, database, receipt("RETRY", "one", device=("9990@lid",))) == [("one", False)]


async def test_a_message_that_is_deleted_takes_its_requests_along(log: PostgresEventLog, sql: Sql) -> None:
    await send(sql, one="SENT")
    await log.append(lease(), [receipt("RETRY", "one", device=WEB)])
    assert await sql.fetchval("SELECT count(*) FROM zap.retry_request") == 1
    await sql.execute("DELETE FROM zap.message")
    assert await sql.fetchval("SELECT count(*) FROM zap.retry_request") == 0


# --- the fence --------------------------------------------------------------------------------------------------


async def everything(sql: Sql) -> list[list[asyncpg.Record]]:
    return [
        await sql.fetch(f'SELECT t::text AS "all" FROM zap.{table} t ORDER BY 1')  # noqa: S608 - from here
        for table in ("session", "lease", "message", "retry_request", "event", "event_sequence")
    ]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("UPDATE zap.lease SET epoch = 2", LeaseLost),
        ("UPDATE zap.lease SET incarnation = gen_random_uuid()", LeaseLost),
        ("UPDATE zap.lease SET incarnation = NULL, expires_at = NULL", LeaseLost),
        ("DELETE FROM zap.lease", LeaseLost),
        ("DELETE FROM zap.session", NotFound),
        # Deleted, and made again under the same id.
        ("UPDATE zap.session SET former_epoch = 1", NotFound),
    ],
)
async def test_who_is_not_the_owner_writes_nothing(
    log: PostgresEventLog, sql: Sql, change: str, error: type[ZapError]
) -> None:
    await send(sql, one="SENT")
    await log.append(lease(), [event(1, "a")])
    await sql.execute(change)
    before = await everything(sql)
    with pytest.raises(error) as refused:
        await log.append(lease(), [event(2, "b"), receipt("READ", "one"), receipt("RETRY", "one", device=WEB)])
    assert refused.value.metadata["session_id"] == "anna"
    assert await everything(sql) == before


@pytest.mark.parametrize(
    "change", ["UPDATE zap.lease SET is_revoked = true", "UPDATE zap.lease SET expires_at = now() - interval '1 s'"]
)
async def test_who_is_asked_to_stop_or_late_may_write_until_another_epoch_begins(
    log: PostgresEventLog, sql: Sql, change: str
) -> None:
    await sql.execute(change)
    assert await append(log, lease(), [event(1, "a")]) == [(1, "text 1")]


async def test_an_append_that_meets_the_end_of_its_epoch_waits_and_is_refused(
    log: PostgresEventLog, database: Database, sql: Sql
) -> None:
    async with database.transaction() as ending:
        await ending.row("lock_session", "anna")
        assert await ending.value("begin_epoch", "anna", NODE, TTL) == 2
        appending = asyncio.create_task(log.append(lease(), [event(1, "a")]))
        await waiting(sql, "transactionid")
    with pytest.raises(LeaseLost):
        await appending
    assert await sql.fetchval("SELECT count(*) FROM zap.event") == 0


async def test_an_epoch_does_not_end_while_an_append_is_under_way_and_is_renewed_all_the_same(
    log: PostgresEventLog, database: Database, database_url: str, sql: Sql
) -> None:
    leases = PostgresLeases(database, database)
    async with held(database_url, "LOCK TABLE zap.event_sequence"):
        appending = asyncio.create_task(append(log, lease(), [event(1, "a")]))
        await waiting(sql, "relation")
        beginning = asyncio.create_task(leases.begin_epoch("anna", NODE, TTL))
        await waiting(sql, "transactionid")
        here = Announcement(Node(NODE, "here", "127.0.0.1:1"), 5)
        assert list((await leases.renew(here, TTL)).renewed) == [lease()]
        assert not beginning.done()
    assert await appending == [(1, "text 1")]
    assert (await beginning).epoch == 2


async def test_of_appends_that_race_with_epochs_none_is_behind_the_next_epoch_s(
    log: PostgresEventLog, database: Database, sql: Sql
) -> None:
    """Three writers for each of thirty epochs, each until it is refused."""
    leases, numbers, written = PostgresLeases(database, database), itertools.count(), list[int]()

    async def write(held: Lease) -> None:
        with suppress(LeaseLost):
            while True:
                number = next(numbers)
                ((sequence, _),) = await append(log, held, [event(number, f"origin {number}")])
                written.append(sequence)

    async with asyncio.TaskGroup() as writers:
        for _ in range(30):
            held = await leases.begin_epoch("anna", NODE, TTL)
            before = len(written)
            for _ in range(3):
                writers.create_task(write(held))
            while len(written) == before:
                await asyncio.sleep(0)
        await sql.execute("UPDATE zap.lease SET incarnation = NULL, expires_at = NULL")
    rows = await sql.fetch("SELECT epoch, sequence FROM zap.event ORDER BY sequence")
    assert [row["epoch"] for row in rows] == sorted(row["epoch"] for row in rows)
    assert {row["epoch"] for row in rows} == set(range(2, 32))
    assert [row["sequence"] for row in rows] == sorted(written)


async def waiting(sql: Sql, event: str) -> asyncpg.Record:
    """The session of Postgres that waits for such a lock."""
    async with asyncio.timeout(20):
        while True:
            found = await sql.fetchrow(
                "SELECT backend_xid FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = $1",
                event,
            )
            if found is not None:
                return found
            await asyncio.sleep(0.01)


@asynccontextmanager
async def held(database_url: str, lock: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute(lock)
        yield
    await connection.close()


@pytest.mark.parametrize(
    ("lock", "event_name"),
    [
        ("SELECT pg_advisory_xact_lock(hashtextextended('zap.event:anna', 0))", "advisory"),
        ("SELECT FROM zap.session FOR UPDATE", "transactionid"),
    ],
)
async def test_an_append_that_waits_has_no_number_yet(
    log: PostgresEventLog, database_url: str, sql: Sql, lock: str, event_name: str
) -> None:
    """Or a later sequence could be visible before an earlier one, and the wait would hold the horizon."""
    async with held(database_url, lock):
        appending = asyncio.create_task(append(log, lease(), [event(1, "a")]))
        assert (await waiting(sql, event_name))["backend_xid"] is None
    assert await appending == [(1, "text 1")]


async def test_an_append_that_waited_sees_what_was_appended_meanwhile(
    log: PostgresEventLog, database: Database, sql: Sql
) -> None:
    """Each statement of the function has a snapshot of its own."""
    async with database.transaction() as somebody:
        await somebody.run("lock_session_log", "anna")
        appending = asyncio.create_task(append(log, lease(), [event(1, "a"), event(2, "b")]))
        await waiting(sql, "advisory")
        await somebody.row("append_events", "anna", 1, *columns(encode_payload, [event(1, "a")]))
    assert await appending == [(2, "text 2")]


# --- what it costs ----------------------------------------------------------------------------------------------


async def test_a_batch_is_one_transaction_in_one_round_trip(log: PostgresEventLog, line: RoundTrips, sql: Sql) -> None:
    # What is said once for each connection, and for each statement.
    await log.append(lease(), [event(1, "warm up")])
    before = line.count
    batch = [event(each, f"origin {each}") for each in range(2, 201)]
    await log.append(lease(), [*batch, receipt("DELIVERED", "one")])
    assert line.count - before == 1
    assert await sql.fetchval("SELECT count(DISTINCT xid) FROM zap.event WHERE sequence > 1") == 1


async def test_a_pooler_in_transaction_mode_is_lived_with(database_url: str, sql: Sql) -> None:
    """Inside a transaction, as whatever is said through one; nothing is left behind in its connection."""
    row = (*columns(encode_payload, [event(1, "a")]), *[[]] * 6)
    async with TransactionPooler(database_url) as pooler:
        connection = await asyncpg.connect(pooler.url, statement_cache_size=0)
        for expected in ([1], []):
            async with connection.transaction():
                appended = await connection.fetchrow(statement("append_inbound"), "anna", 1, NODE, *row)
                assert appended is not None
                assert appended["sequences"] == expected
        assert pooler.transactions == 2
        await connection.close()
    assert await sql.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


@pytest.mark.parametrize("is_analyzed", [True, False])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_neither_a_large_log_nor_many_messages_are_read_to_find_what_is_known(
    sql: Sql, mode: str, is_analyzed: bool
) -> None:
    """One session has nearly all of it: whoever looks by the session alone reads it all."""
    await sql.execute(
        "INSERT INTO zap.event (session_id, epoch, sequence, time, type, payload, origin)"
        " SELECT CASE WHEN n % 100 = 0 THEN 'bern' ELSE 'anna' END, 1, n, now(), '', '',"
        " substring(sha256(n::text::bytea) for 16) FROM generate_series(1, 50000) n"
    )
    await sql.execute("INSERT INTO zap.event_sequence VALUES ('anna', 50000)")
    await sql.execute(
        "INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch, state, message_id)"
        " SELECT 'anna', n, '', '', 1, 'SENT', 'WA' || n FROM generate_series(1, 50000) n"
    )
    if is_analyzed:
        await sql.execute("ANALYZE zap.event, zap.message")
    await sql.execute(f"SET plan_cache_mode = {mode}")
    origins = [hashlib.sha256(str(number).encode()).digest()[:16] for number in range(49_901, 50_101)]
    events = [NewEvent(InboundEvent("T", b""), NOW, origin) for origin in origins]
    explained = await sql.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement('append_inbound')}",
        *("anna", 1, NODE, *columns(encode_payload, events), ["WA1", "WA2"], ["WA3"], *[[]] * 4),
    )
    plan = json.loads(explained)[0]["Plan"]
    # A lookup for each of 200, in an index of three levels, and what is written of those that are new.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200 * 4 + 105 * 25
    assert await sql.fetchval("SELECT count(*) FROM zap.event WHERE sequence > 50000") == 101, "the other has one"
    assert await sql.fetchval("SELECT count(*) FROM zap.message WHERE state <> 'SENT'") == 3


@pytest.mark.parametrize("is_analyzed", [True, False])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_neither_many_messages_nor_many_requests_are_read_to_find_those_of_a_receipt(
    sql: Sql, mode: str, is_analyzed: bool
) -> None:
    await sql.execute(
        "WITH message AS ("
        " INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch, state, message_id)"
        " SELECT 'anna', n, '', '', 1, 'SENT', 'WA' || n FROM generate_series(1, 50000) n RETURNING *)"
        " INSERT INTO zap.retry_request SELECT session_id, request_id, message_id, '111@lid', now(), false FROM message"
    )
    if is_analyzed:
        await sql.execute("ANALYZE zap.message, zap.retry_request")
    await sql.execute(f"SET plan_cache_mode = {mode}")
    told = (
        ["WA1", "WA2", "WA3", "WA4"],
        ["DELIVERED", "READ", "RETRY", "RETRY"],
        ["111@lid"] * 3 + ["2@lid"],
        [NOW] * 4,
    )
    arguments = ("anna", 1, NODE, *columns(encode_payload, []), ["WA1"], ["WA2"], *told)
    # What the functions read of the catalog when they are first called does not count.
    await sql.execute(statement("append_inbound"), *arguments)
    explained = await sql.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement('append_inbound')}", *arguments)
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 150
    assert await sql.fetchval("SELECT count(*) FROM zap.retry_request WHERE device = '111@lid'") == 50_000 - 2
    assert await sql.fetchval("SELECT message_id FROM zap.retry_request WHERE device = '2@lid'") == "WA4"
