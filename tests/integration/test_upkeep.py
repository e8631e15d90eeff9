"""What is old is deleted on a real Postgres: in the order of places, and no reader finds a gap without being told."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from dev import EmbeddedPostgres
from service.domain.errors import OutOfRange
from service.domain.log_positions import LogPosition
from service.domain.watch import Delivered, StartPosition
from service.eventlog.reader import token_key
from service.maintenance.retention import DELETE_BATCH_ROWS, Retention
from service.store.database import Database
from service.store.maintenance import SESSION_SETTINGS, PostgresMaintenance
from service.store.migrate import EVENT_BUFFER_INDEX, index_event_buffer
from service.store.queries import statement
from service.telemetry.metrics import MaintenanceMetrics
from service.workers.pool import Pool, PoolSettings
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.integration.test_watching import ALL, Log
from tests.transaction_pooler import TransactionPooler

HOUR = timedelta(hours=1)


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    database = Database(database_url, name="test", size=20)
    await database.open()
    yield Log(database, await token_key(database))
    await database.close()


@pytest.fixture
async def upkeep(database_url: str) -> AsyncIterator[PostgresMaintenance]:
    database = Database(database_url, name="test/upkeep", size=1, timeouts=SESSION_SETTINGS)
    await database.open()
    yield PostgresMaintenance(database)
    await database.close()


@pytest.fixture
async def whatsmeow(database_url: str) -> AsyncIterator[None]:
    """whatsmeow's own tables, made by itself, and our index; once more, as at every start."""
    pool = Pool(PoolSettings(database_url))
    await pool.open()
    for _ in range(2):
        await pool.prepare_store()
        await index_event_buffer(database_url)
    yield
    await pool.close()


async def age(sql: Sql, *sequences: int, hours: float = 2.0) -> None:
    await sql.execute(
        "UPDATE zap.event SET appended_at = appended_at - make_interval(secs => 3600 * $2::float8)"
        " WHERE sequence = any($1::bigint[])",
        sequences,
        hours,
    )


async def left(sql: Sql) -> list[int]:
    return [row["sequence"] for row in await sql.fetch("SELECT sequence FROM zap.event ORDER BY sequence")]


async def trimmed(upkeep: PostgresMaintenance, sql: Sql, expected: list[int]) -> None:
    async def is_trimmed() -> bool:
        await upkeep.trim_events(HOUR, DELETE_BATCH_ROWS)
        return await left(sql) == expected

    await eventually(is_trimmed)


async def test_what_is_old_is_deleted_and_the_oldest_place_moves(
    log: Log, upkeep: PostgresMaintenance, sql: Sql
) -> None:
    await log.append("anna", 1, 2)
    await log.append("anna", 3, 4)
    await age(sql, 1, 2, 3)
    last = await sql.fetchrow("SELECT xid::text::bigint AS xid, id FROM zap.event WHERE sequence = 3")
    assert last is not None
    assert await upkeep.oldest_event_age() > 7200
    await trimmed(upkeep, sql, [4])
    assert (await log.reader.bounds(LogPosition(0))).oldest == LogPosition(last["xid"], last["id"])
    assert 0 < await upkeep.oldest_event_age() < 7200


async def test_what_lies_behind_an_event_that_is_kept_is_kept(log: Log, upkeep: PostgresMaintenance, sql: Sql) -> None:
    await log.append("anna", 1, 2, 3)
    await age(sql, 1, 3)
    await trimmed(upkeep, sql, [2, 3])
    assert await upkeep.trim_events(HOUR, DELETE_BATCH_ROWS) == 0


async def test_no_more_is_deleted_at_once_than_asked(log: Log, upkeep: PostgresMaintenance, sql: Sql) -> None:
    await log.append("anna", *range(1, 11))
    await age(sql, *range(1, 11))

    async def is_begun() -> bool:
        return await upkeep.trim_events(HOUR, 4) == 4

    await eventually(is_begun)
    assert await left(sql) == list(range(5, 11))
    await trimmed(upkeep, sql, [])
    assert await upkeep.oldest_event_age() == 0.0


async def test_sequences_go_on_when_all_events_are_deleted(log: Log, upkeep: PostgresMaintenance, sql: Sql) -> None:
    await log.append("anna", 1, 2)
    await age(sql, 1, 2)
    await trimmed(upkeep, sql, [])
    await log.append("anna", 3)
    assert await left(sql) == [3]


async def test_one_node_at_a_time_deletes(log: Log, upkeep: PostgresMaintenance, sql: Sql) -> None:
    await log.append("anna", 1)
    await age(sql, 1)
    async with sql.transaction():
        assert await sql.fetchval(statement("begin_upkeep"))
        assert await upkeep.trim_events(HOUR, DELETE_BATCH_ROWS) == 0
    await trimmed(upkeep, sql, [])


async def test_what_nobody_could_have_been_given_is_kept(
    log: Log, upkeep: PostgresMaintenance, sql: Sql, postgres_server: EmbeddedPostgres
) -> None:
    neighbour = await asyncpg.connect(postgres_server.url)
    async with neighbour.transaction():
        await neighbour.fetchval("SELECT pg_current_xact_id()")
        await log.append("anna", 1)
        await age(sql, 1)
        assert await upkeep.trim_events(HOUR, DELETE_BATCH_ROWS) == 0
        assert await left(sql) == [1]
    await neighbour.close()
    await trimmed(upkeep, sql, [])


async def test_a_consumer_who_was_away_too_long_is_told_and_resumes_with_the_oldest(
    log: Log, upkeep: PostgresMaintenance, sql: Sql
) -> None:
    await log.append("anna", 1, 2, 3, 4)
    events = await log.collect(4, StartPosition(is_oldest=True))
    await age(sql, 1, 2)
    await trimmed(upkeep, sql, [3, 4])
    with pytest.raises(OutOfRange) as refused:
        await log.collect(1, StartPosition(token=log.tokens.write(events[0].position)))
    assert refused.value.reason == "RESUME_TOKEN_EXPIRED"
    for token in (refused.value.metadata["resume_token"], log.tokens.write(events[1].position)):
        # Whoever has seen what was deleted misses nothing.
        assert [event.sequence for event in await log.collect(2, StartPosition(token=token))] == [3, 4]
    assert [event.sequence for event in await log.collect(2, StartPosition(is_oldest=True))] == [3, 4]


async def test_a_consumer_who_is_overtaken_while_he_reads_is_told(
    log: Log, upkeep: PostgresMaintenance, sql: Sql
) -> None:
    total = 2_000
    await log.append("anna", *range(1, total + 1))
    async with asyncio.timeout(30), aclosing(log.watching.watch(ALL, StartPosition(is_oldest=True))) as steps:
        seen: list[int] = []

        async def read() -> None:
            async for step in steps:
                if isinstance(step, Delivered):
                    seen.append(step.event.sequence)
                if len(seen) == 1:
                    await age(sql, *range(1, total + 1))
                    await trimmed(upkeep, sql, [])

        with pytest.raises(OutOfRange) as refused:
            await read()
    assert refused.value.reason == "RESUME_TOKEN_EXPIRED"
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) < total


async def test_appends_and_consumers_go_on_beside_it(
    log: Log, upkeep: PostgresMaintenance, sql: Sql, whatsmeow: None
) -> None:
    await log.append("anna", *range(1, 2_001))
    await age(sql, *range(1, 2_001))
    reading = asyncio.create_task(log.collect(200, StartPosition()))
    await asyncio.sleep(0)
    retention = asyncio.create_task(
        Retention(
            upkeep, MaintenanceMetrics(CollectorRegistry()), events=timedelta(hours=1, microseconds=-1), messages=HOUR
        )._trim()
    )
    for number in range(2_001, 2_401):
        await log.append("anna", number)
    assert len(await reading) == 200
    await retention
    await trimmed(upkeep, sql, list(range(2_001, 2_401)))


async def test_messages_go_when_they_are_settled_and_old(upkeep: PostgresMaintenance, sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch)"
        " VALUES ('anna', '', '', '{}', '', '', 0)"
    )
    for request_id, state, hours in (
        ("old", "READ", 2),
        ("failed", "FAILED", 2),
        ("open", "ACCEPTED", 2),
        ("new", "SENT", 0),
    ):
        await sql.execute(
            "INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch, state, create_time)"
            " VALUES ('anna', $1, '', '', 1, $2, now() - make_interval(hours => $3))",
            request_id,
            state,
            hours,
        )
    assert await upkeep.trim_messages(HOUR, 1) == 1
    assert await upkeep.trim_messages(HOUR, DELETE_BATCH_ROWS) == 1
    assert {row["request_id"] for row in await sql.fetch("SELECT request_id FROM zap.message")} == {"open", "new"}


async def link(sql: Sql, *jids: str) -> None:
    """Devices of these addresses."""
    for jid in jids:
        await sql.execute(
            "INSERT INTO whatsmeow_device (jid, registration_id, noise_key, identity_key, signed_pre_key,"
            " signed_pre_key_id, signed_pre_key_sig, adv_key, adv_details, adv_account_sig, adv_account_sig_key,"
            " adv_device_sig) VALUES ($1, 1, $2, $2, $2, 1, $3, '', '', $3, $2, $3)",
            jid,
            bytes(32),
            bytes(64),
        )


def milliseconds(hours: float) -> int:
    """So many hours ago, as whatsmeow writes it."""
    return int((time.time() - 3600 * hours) * 1000)


async def decrypted(sql: Sql, jid: str, number: int, hours: float, plaintext: bytes | None = None) -> None:
    """By whatsmeow, so many hours ago."""
    await sql.execute(
        "INSERT INTO whatsmeow_event_buffer (our_jid, ciphertext_hash, plaintext, server_timestamp, insert_timestamp)"
        " VALUES ($1, sha256($2::text::bytea), $3, 0, $4)",
        jid,
        str(number),
        plaintext,
        milliseconds(hours),
    )


async def test_what_whatsmeow_remembers_of_messages_goes_when_it_is_old_and_in_the_log(
    upkeep: PostgresMaintenance, sql: Sql, whatsmeow: None
) -> None:
    await link(sql, "anna", "bern")
    await decrypted(sql, "anna", 1, hours=2)
    await decrypted(sql, "bern", 2, hours=2)
    await decrypted(sql, "anna", 3, hours=0.9)
    # Nobody has acknowledged it: WhatsApp sends it again, and nobody could read it without this row.
    await decrypted(sql, "bern", 4, hours=2, plaintext=b"hello")
    assert await upkeep.trim_event_buffer(HOUR, 1) == 1
    assert await upkeep.trim_event_buffer(HOUR, DELETE_BATCH_ROWS) == 1
    assert await upkeep.trim_event_buffer(HOUR, DELETE_BATCH_ROWS) == 0
    left = await sql.fetch("SELECT ciphertext_hash FROM whatsmeow_event_buffer ORDER BY insert_timestamp")
    kept = await sql.fetch("SELECT sha256(n::text::bytea) AS hash FROM unnest(array[4, 3]) n")
    assert [row["ciphertext_hash"] for row in left] == [row["hash"] for row in kept]


async def test_messages_that_were_sent_are_not_kept_for_a_retry_when_they_are_old(
    upkeep: PostgresMaintenance, sql: Sql, whatsmeow: None
) -> None:
    await link(sql, "anna", "bern", "silent")
    for jid, message_id, hours in (("anna", "1", 2.0), ("anna", "2", 0.9), ("bern", "3", 3.0), ("bern", "4", 2.0)):
        await sql.execute(
            "INSERT INTO whatsmeow_retry_buffer (our_jid, chat_jid, message_id, format, plaintext, timestamp)"
            " VALUES ($1, 'chat', $2, '', 'hello', $3)",
            jid,
            message_id,
            milliseconds(hours),
        )
    assert await upkeep.trim_retry_buffer(HOUR, 2) == 2
    assert await upkeep.trim_retry_buffer(HOUR, DELETE_BATCH_ROWS) == 1
    assert [row["message_id"] for row in await sql.fetch("SELECT message_id FROM whatsmeow_retry_buffer")] == ["2"]


async def test_whatsmeow_s_buffers_are_not_read_to_find_what_is_old(sql: Sql, whatsmeow: None) -> None:
    await link(sql, *(f"device {number}" for number in range(20)))
    await sql.execute(
        "INSERT INTO whatsmeow_event_buffer (our_jid, ciphertext_hash, server_timestamp, insert_timestamp)"
        " SELECT 'device ' || n % 20, sha256(n::text::bytea), 0, $1::bigint + n FROM generate_series(1, 50000) n",
        milliseconds(2),
    )
    await sql.execute(
        "INSERT INTO whatsmeow_retry_buffer (our_jid, chat_jid, message_id, format, plaintext, timestamp)"
        " SELECT 'device ' || n % 20, 'chat', n, '', '', $1::bigint + n FROM generate_series(1, 50000) n",
        milliseconds(2),
    )
    await sql.execute("ANALYZE whatsmeow_event_buffer, whatsmeow_retry_buffer, whatsmeow_device")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    for table in ("event", "retry"):
        await sql.execute(f"PREPARE {table} (interval, bigint) AS {statement(f'trim_{table}_buffer')}")
        explained = await sql.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {table} ('1 h', 100)")
        plan = json.loads(explained)[0]["Plan"]
        # Found, and deleted; a table of 50,000 rows has more than 700 pages.
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 600
        assert await sql.fetchval(f"SELECT count(*) FROM whatsmeow_{table}_buffer") == 49_900  # noqa: S608 - of two


async def test_our_index_on_whatsmeow_s_table_is_made_once_and_by_way_of_a_pooler(
    sql: Sql, database_url: str, whatsmeow: None
) -> None:
    there = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
    assert await sql.fetchval(there, EVENT_BUFFER_INDEX)
    await sql.execute(f"DROP INDEX {EVENT_BUFFER_INDEX}")
    async with TransactionPooler(database_url) as pooler:
        await index_event_buffer(pooler.url)
        assert await sql.fetchval(there, EVENT_BUFFER_INDEX)
        # Whoever writes to the table is not waited for when there is nothing to do.
        async with sql.transaction():
            await sql.execute("LOCK TABLE whatsmeow_event_buffer IN ROW EXCLUSIVE MODE")
            await index_event_buffer(pooler.url)


async def test_a_large_log_is_not_read_to_delete_its_beginning(sql: Sql, database_url: str) -> None:
    """Nor what was deleted before, and lies in the index as long as somebody's snapshot has it."""
    await sql.execute(
        "INSERT INTO zap.event (xid, session_id, epoch, sequence, frame, time, type, payload, appended_at)"
        " SELECT (n / 200 + 3)::text::xid8, 'anna', 1, n, 0, now(), '', '', now() - interval '2 h'"
        " FROM generate_series(1, 60000) n"
    )
    await sql.execute("ANALYZE zap.event")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await sql.execute(f"PREPARE trim (interval, bigint) AS {statement('trim_events')}")
    backup = await asyncpg.connect(database_url)
    async with backup.transaction(isolation="repeatable_read"):
        assert await backup.fetchval("SELECT count(*) FROM zap.event") == 60_000
        for _ in range(50):
            assert await sql.fetchval("EXECUTE trim ('1 h', 1000)") == 1000
        explained = await sql.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE trim ('1 h', 100)")
    await backup.close()
    plan = json.loads(explained)[0]["Plan"]
    # Found, found by id, and deleted. The 50,000 that are gone lie on a thousand pages.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 600
    assert await sql.fetchval("SELECT count(*) FROM zap.event") == 9_900


async def test_sessions_are_counted_as_status_shows_them(upkeep: PostgresMaintenance, sql: Sql) -> None:
    assert await counts(upkeep, 0.0) == ({}, 0)
    await sql.execute(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch,"
        " desired_state, state, reason, credentials, identity_key)"
        " SELECT id, '', '', '{}', '', '', 0, wish, state, reason, credentials, key FROM (VALUES"
        " ('a', 'INACTIVE', 'LOGGED_OUT', 'ACCOUNT_BANNED', 'NONE', NULL),"
        " ('b', 'INACTIVE', 'LOGGED_OUT', 'ACCOUNT_BANNED', 'NONE', NULL),"
        " ('c', 'ACTIVE', 'CONNECTED', '', 'CONFIRMED', sha256('c')),"
        " ('d', 'ACTIVE', 'CONNECTED', '', 'CONFIRMED', sha256('d')),"
        " ('e', 'ACTIVE', 'FAILED', 'STREAM_REPLACED', 'CONFIRMED', sha256('e')),"
        " ('f', 'ACTIVE', 'SUSPENDED', 'TEMPORARILY_BANNED', 'CONFIRMED', sha256('f')),"
        " ('g', 'ACTIVE', 'SUSPENDED', 'TEMPORARILY_BANNED', 'CONFIRMED', sha256('g')),"
        " ('h', 'ACTIVE', 'CONNECTED', '', 'CONFIRMED', sha256('h')),"
        " ('i', 'ACTIVE', 'CONNECTED', '', 'CONFIRMED', sha256('i')),"
        " ('j', 'ACTIVE', 'CONNECTED', '', 'CONFIRMED', sha256('j'))"
        ") AS one (id, wish, state, reason, credentials, key)"
    )
    # The owner vouches for one that was connected. The leases of others are old, not begun, or of a new epoch.
    await sql.execute(
        "UPDATE zap.lease SET (epoch, incarnation, node, renewed_at, expires_at, is_begun)"
        " = (1, gen_random_uuid(), 'n', clock_timestamp(), clock_timestamp() + interval '1 hour', true)"
        " WHERE session_id IN ('c', 'h', 'i', 'j')"
    )
    await sql.execute("UPDATE zap.lease SET renewed_at = now() - interval '2 h' WHERE session_id = 'h'")
    await sql.execute("UPDATE zap.lease SET is_begun = false WHERE session_id = 'i'")
    await sql.execute("UPDATE zap.session SET connected_epoch = CASE session_id WHEN 'c' THEN 1 ELSE 2 END")
    await sql.execute("UPDATE zap.session SET next_attempt_at = now() + interval '1 h' WHERE session_id = 'f'")
    await sql.execute("UPDATE zap.session SET next_attempt_at = now() WHERE session_id = 'g'")
    by_state = {
        ("LOGGED_OUT", "ACCOUNT_BANNED"): 2,
        ("CONNECTED", ""): 1,
        ("RECONNECTING", "NODE_STOPPED"): 4,
        ("FAILED", "STREAM_REPLACED"): 1,
        ("SUSPENDED", "TEMPORARILY_BANNED"): 2,
    }
    assert await counts(upkeep, 60.0) == ({}, 0), "as they were counted before"
    assert await counts(upkeep, 0.0) == (by_state, 6)
    assert await counts(upkeep, 60.0) == (by_state, 6)
    rows = await sql.fetch("SELECT state, reason, count(*) AS sessions FROM zap.session_now GROUP BY 1, 2")
    assert {(row["state"], row["reason"]): row["sessions"] for row in rows} == by_state, "the rule is the view's"


async def test_one_node_counts_and_the_others_do_not_wait_for_it(
    upkeep: PostgresMaintenance, sql: Sql, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        assert await other.fetchval(statement("begin_census"))
        assert await upkeep.session_counts(0.0) is None, "nothing was ever counted"
    assert await counts(upkeep, 0.0) == ({}, 0)
    async with other.transaction():
        assert await other.fetchval(statement("begin_census"))
        await sql.execute("UPDATE zap.census SET counts_at = now() - interval '20 s'")
        found = await upkeep.session_counts(10.0)
        assert found is not None
        assert 20 <= found.age_s < 30
    found = await upkeep.session_counts(10.0)
    assert found is not None
    assert found.age_s < 10
    await other.close()


async def counts(upkeep: PostgresMaintenance, max_age_s: float) -> tuple[Mapping[tuple[str, str], int], int]:
    found = await upkeep.session_counts(max_age_s)
    assert found is not None
    return found.by_state, found.wanted
