"""What a process writes down in place of its dead node, on a real Postgres: all of it, once, in order, in time."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from service.domain.errors import Unavailable
from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.pool import wire
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.events import PostgresEventLog
from service.store.reach import DatabaseUnreachable, check_log_is_writable
from service.whatsapp.bequest import MOST_BYTES, MOST_FRAMES, Bequest, batches, event_of
from service.whatsapp.unconfirmed import Numbered, Unconfirmed
from tests.chaos.pgbouncer import PgBouncer, pgbouncer_program
from tests.e2e.sql import Sql
from tests.tcp_proxy import Line, TcpProxy
from tests.transaction_pooler import TransactionPooler
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

PATIENCE = 60.0
EPOCH = 3


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def fail(session_id: str, event: NewEvent, error: Exception) -> None:
    raise error


def message(text: str, raw: bytes = b"") -> frames_pb2.Frame:
    received = event_pb2.MessageReceived(message_id=text, text=text, raw=raw)
    return frames_pb2.Frame(
        event=event_pb2.Event(type=event_pb2.Event.TYPE_MESSAGE_RECEIVED, message_received=received)
    )


def receipt(kind: "event_pb2.Receipt.Kind.ValueType", *message_ids: str) -> frames_pb2.Frame:
    told = event_pb2.Receipt(message_ids=message_ids, kind=kind)
    return frames_pb2.Frame(event=event_pb2.Event(type=event_pb2.Event.TYPE_RECEIPT, receipt=told))


def unconfirmed(*frames: frames_pb2.Frame, first: int = 1) -> Unconfirmed:
    kept = Unconfirmed()
    for number, frame in enumerate(frames, first):
        frame.number = number
        frame.time.GetCurrentTime()
        kept.add(number, wire.frame(frame))
    return kept


async def write(url: str, frames: Unconfirmed, orphan: int = 0, seconds: float = PATIENCE) -> str:
    """As the process does it, on a thread without a loop."""
    session_id = f"anna-{orphan}" if orphan else "anna"
    bequest = Bequest(frames_pb2.Start(session_id=session_id, epoch=EPOCH, log_url=url), frames)
    return await asyncio.to_thread(bequest.write, time.monotonic() + seconds)


async def log_of(sql: Sql) -> list[tuple[int, int, str]]:
    """Sequence, frame and text of each message."""
    rows = await sql.fetch("SELECT sequence, frame, epoch, payload FROM zap.event ORDER BY sequence")
    assert {row["epoch"] for row in rows} <= {EPOCH}
    return [
        (row["sequence"], row["frame"], event_pb2.Event.FromString(row["payload"]).message_received.text)
        for row in rows
    ]


async def test_everything_is_written_in_its_order_and_then_forgotten(database_url: str, sql: Sql) -> None:
    frames = unconfirmed(message("one"), message("two"), message("three"))
    assert (await write(database_url, frames)).startswith("3 of 3 unconfirmed observations were not in the event log")
    assert await log_of(sql) == [(1, 1, "one"), (2, 2, "two"), (3, 3, "three")]
    assert frames.all() == ()


async def test_what_the_node_had_committed_without_a_word_is_not_written_twice(database_url: str, sql: Sql) -> None:
    all_of_it = [message("one"), message("two"), message("three")]
    frames = unconfirmed(*all_of_it)
    node = Database(database_url, name="node")
    await node.open()
    events = [event_of(frame) for frame in frames.all()[:2]]
    await PostgresEventLog(node, encode_payload, fail).append(Lease("anna", EPOCH, uuid.uuid4()), events)
    await node.close()
    assert (await write(database_url, frames)).startswith("1 of 3 ")
    assert await log_of(sql) == [(1, 1, "one"), (2, 2, "two"), (3, 3, "three")]


async def test_receipts_tell_how_far_messages_came(database_url: str, sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch)"
        " VALUES ('anna', '', '', '{}', '', '', 0)"
    )
    for message_id in ("sent", "delivered", "read"):
        await sql.execute(
            "INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch, state, message_id)"
            " VALUES ('anna', $1, '', '', 1, 'SENT', $1)",
            message_id,
        )
    delivered, read = event_pb2.Receipt.KIND_DELIVERED, event_pb2.Receipt.KIND_READ
    frames = unconfirmed(receipt(delivered, "delivered", "read"), receipt(read, "read"))
    assert (await write(database_url, frames)).startswith("2 of 2 ")
    states = await sql.fetch("SELECT message_id, state FROM zap.message")
    assert {row["message_id"]: row["state"] for row in states} == {
        "sent": "SENT",
        "delivered": "DELIVERED",
        "read": "READ",
    }
    assert await sql.fetchval("SELECT last_inbound_at IS NOT NULL FROM zap.session")


async def test_what_came_for_a_session_that_was_deleted_is_nobody_s(database_url: str, sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch)"
        " VALUES ('anna', '', '', '{}', '', '', $1)",
        EPOCH,
    )
    assert (await write(database_url, unconfirmed(message("one")))).startswith("0 of 1 ")
    assert await log_of(sql) == []


async def test_one_that_the_database_refuses_does_not_keep_back_the_others(database_url: str, sql: Sql) -> None:
    await sql.execute("ALTER TABLE zap.event ADD CONSTRAINT poison CHECK (frame NOT IN (2, 5))")
    frames = unconfirmed(*(message(str(number)) for number in range(1, 8)))
    words = await write(database_url, frames)
    assert "2 were refused (CheckViolationError)" in words
    assert await log_of(sql) == [(1, 1, "1"), (2, 3, "3"), (3, 4, "4"), (4, 6, "6"), (5, 7, "7")]


async def test_one_that_cannot_be_understood_does_not_keep_back_the_others(database_url: str, sql: Sql) -> None:
    frames = unconfirmed(message("one"))
    frames.add(2, wire.frame(frames_pb2.Frame(number=2, connected=frames_pb2.Connected())))
    frames.add(3, b"\0\0\0\3\xff\xff\xff")
    assert "2 were refused (DecodeError, TypeError)" in await write(database_url, frames)
    assert await log_of(sql) == [(1, 1, "one")]


async def test_as_much_as_a_process_keeps_is_written(database_url: str, sql: Sql) -> None:
    frames = unconfirmed(*(message(str(number), bytes(6_500)) for number in range(10_000)))
    assert (await write(database_url, frames)).startswith("10000 of 10000 ")
    assert [(sequence, frame) for sequence, frame, _ in await log_of(sql)] == [(n, n) for n in range(1, 10_001)]


async def test_nothing_to_write_makes_no_connection() -> None:
    assert (await write("postgresql://nobody@127.0.0.1:1/nowhere", Unconfirmed())).startswith("0 of 0 ")


async def test_a_database_that_is_away_is_waited_for(database_url: str, sql: Sql) -> None:
    async with TcpProxy(database_url) as proxy:
        url = proxy.url
        await proxy.set(Line.CUT)
        writing = asyncio.create_task(write(url, unconfirmed(message("one"))))
        await asyncio.sleep(0.5)
        assert not writing.done()
        await proxy.set(Line.OPEN)
        assert (await writing).startswith("1 of 1 ")
    assert len(await log_of(sql)) == 1


@pytest.mark.parametrize("line", [Line.CUT, Line.SILENT])
async def test_a_database_that_stays_away_is_given_up_in_time(database_url: str, line: Line) -> None:
    async with TcpProxy(database_url) as proxy:
        url = proxy.url
        await proxy.set(line)
        began = time.monotonic()
        frames = unconfirmed(message("one"), message("two"))
        assert "2 could not be written in time" in await write(url, frames, seconds=0.5)
        assert time.monotonic() - began < 3.0
        assert len(frames.all()) == 2


async def lock_log(connection: Sql, session_id: str) -> None:
    """As an append does."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('zap.event:' || $1, 0))", session_id)


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_a_node_that_was_stopped_in_the_middle_of_an_append_holds_it_up_for_a_moment(
    database_url: str, sql: Sql, is_pooled: bool
) -> None:
    async with AsyncExitStack() as stack:
        url = (await stack.enter_async_context(TransactionPooler(database_url))).url if is_pooled else database_url
        frozen, neighbour, busy = [await asyncpg.connect(database_url) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for connection, session_id in ((frozen, "anna"), (neighbour, "anna-2"), (busy, "anna-3")):
                stack.callback(connection.terminate)
                await connection.execute("BEGIN")
                await lock_log(connection, session_id)
            assert (await write(url, unconfirmed(message("one")), seconds=3.0)).startswith("1 of 1 ")
            # Whoever does something is not frozen, and is waited for.
            group.create_task(busy.execute("SELECT pg_sleep(2)"))
            assert "1 could not be written in time" in await write(url, unconfirmed(message("one")), 3, 1.0)
        assert await neighbour.fetchval("SELECT 1") == 1, "another session's log is none of its business"
        assert frozen.is_closed()
    assert await log_of(sql) == [(1, 1, "one")]


async def test_what_comes_while_it_writes_is_written_too(database_url: str, sql: Sql) -> None:
    async with TcpProxy(database_url) as proxy:
        await proxy.set(Line.SILENT)
        frames = unconfirmed(message("one"))
        writing = asyncio.create_task(write(proxy.url, frames))
        await asyncio.sleep(0.2)
        late = message("two")
        late.number = 2
        late.time.GetCurrentTime()
        frames.add(2, wire.frame(late))
        await proxy.set(Line.OPEN)
        assert (await writing).startswith("2 of 2 ")
    assert await log_of(sql) == [(1, 1, "one"), (2, 2, "two")]


async def test_what_the_library_is_still_busy_with_is_waited_for(database_url: str, sql: Sql) -> None:
    frames, busy = unconfirmed(message("one")), threading.Event()
    busy.set()
    start = frames_pb2.Start(session_id="anna", epoch=EPOCH, log_url=database_url)
    bequest = Bequest(start, frames, more_may_come=busy.is_set)
    writing = asyncio.create_task(asyncio.to_thread(bequest.write, time.monotonic() + PATIENCE))
    async with asyncio.timeout(10):
        while frames.all():
            await asyncio.sleep(0.01)
    assert not writing.done()
    # It says what it has to say, and only then is it quiet.
    frames.add(2, unconfirmed(message("two"), first=2).all()[0].data)
    busy.clear()
    assert (await writing).startswith("2 of 2 ")
    assert await log_of(sql) == [(1, 1, "one"), (2, 2, "two")]


async def test_a_pooler_in_transaction_mode_is_lived_with(database_url: str, sql: Sql) -> None:
    async with TransactionPooler(database_url) as pooler:
        naive = Database(pooler.url, name="naive", size=1)
        await naive.open()
        with pytest.raises(Unavailable):
            async with naive.transaction():
                pass
        await naive.close()
        await check_log_is_writable(pooler.url, "ZAP_WHATSAPP_DATABASE_URL", 0.0)
        before = pooler.transactions
        frames = unconfirmed(*(message(str(number)) for number in range(2 * MOST_FRAMES)))
        frames.add(2 * MOST_FRAMES + 1, b"\0\0\0\3\xff\xff\xff")
        assert "; 1 were refused" in await write(pooler.url, frames)
        assert pooler.transactions - before == 2
    assert [(sequence, frame) for sequence, frame, _ in await log_of(sql)] == [
        (n, n) for n in range(1, 2 * MOST_FRAMES + 1)
    ]


@pytest.mark.skipif(pgbouncer_program() is None, reason="there is no PgBouncer here")
async def test_the_real_pgbouncer_is_lived_with(database_url: str, sql: Sql, server_folder: Path) -> None:
    program = pgbouncer_program()
    assert program is not None
    async with PgBouncer(server_folder, program, database_url) as bouncer:
        await check_log_is_writable(bouncer.url, "ZAP_WHATSAPP_DATABASE_URL", 5.0)
        delivered = receipt(event_pb2.Receipt.KIND_DELIVERED, "nobody's")
        orphans = [write(bouncer.url, unconfirmed(message("one"), delivered), number) for number in range(20)]
        assert {words.partition(" unconfirmed")[0] for words in await asyncio.gather(*orphans)} == {"2 of 2"}
    counts = await sql.fetch("SELECT session_id, count(*) FROM zap.event GROUP BY session_id")
    assert [row["count"] for row in counts] == [2] * 20


@pytest.mark.parametrize(
    ("frames", "sizes"),
    [
        ([], []),
        ([10] * 3, [3]),
        ([10] * (2 * MOST_FRAMES + 1), [MOST_FRAMES, MOST_FRAMES, 1]),
        ([MOST_BYTES, 1, MOST_BYTES - 1, 1], [1, 2, 1]),
        ([2 * MOST_BYTES, 2 * MOST_BYTES], [1, 1]),
    ],
)
def test_a_transaction_is_of_a_size_that_can_be_borne(frames: Sequence[int], sizes: Sequence[int]) -> None:
    given = [Numbered(number, bytes(size)) for number, size in enumerate(frames)]
    cut = list(batches(given))
    assert [len(batch) for batch in cut] == list(sizes)
    assert [frame for batch in cut for frame in batch] == given


RIGHTS = (
    "GRANT USAGE ON SCHEMA zap TO {user}",
    "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA zap TO {user}",
)


@pytest.mark.parametrize(("rights", "complaint"), [(0, "schema zap"), (1, "permission denied for"), (2, "")])
async def test_a_user_who_may_not_write_the_log_is_refused_at_the_start(
    database_url: str, sql: Sql, rights: int, complaint: str
) -> None:
    user = f"session_{uuid.uuid4().hex}"
    await sql.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'word'")
    try:
        for right in RIGHTS[:rights]:
            await sql.execute(right.format(user=user))
        url = database_url.replace(database_url.partition("//")[2].partition("@")[0], f"{user}:word")
        if complaint:
            with pytest.raises(DatabaseUnreachable, match=complaint) as refused:
                await check_log_is_writable(url, "ZAP_WHATSAPP_DATABASE_URL", 5.0)
            assert str(refused.value).startswith("ZAP_WHATSAPP_DATABASE_URL: ")
            assert "word" not in str(refused.value)
        else:
            await check_log_is_writable(url, "ZAP_WHATSAPP_DATABASE_URL", 5.0)
            assert (await write(url, unconfirmed(message("one")))).startswith("1 of 1 ")
            assert await log_of(sql) == [(1, 1, "one")], "and the rehearsal left nothing"
    finally:
        await sql.execute(f"DROP OWNED BY {user}")
        await sql.execute(f"DROP ROLE {user}")


async def test_a_database_that_takes_no_writes_is_refused_at_the_start(database_url: str, sql: Sql) -> None:
    await sql.execute(
        f"ALTER DATABASE {database_url.rpartition('/')[2].partition('?')[0]} SET default_transaction_read_only = on"
    )
    with pytest.raises(DatabaseUnreachable, match="ReadOnlySQLTransactionError"):
        await check_log_is_writable(database_url, "ZAP_WHATSAPP_DATABASE_URL", 0.5)
