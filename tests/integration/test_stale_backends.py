"""What a dead process had sent to Postgres, and Postgres has not carried out when the session's next process starts."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs

from service.domain.lease import Lease, backends_of
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.owned import PostgresOwnedSessions
from service.store.stale_backends import StaleBackends
from tests.eventually import eventually
from tests.integration.test_store import NODE, TTL, Store, connected
from tests.tcp_proxy import Line, TcpProxy

WRITE = "UPDATE whatsmeow_device SET jid = 'of the epoch before'"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url, name="test")
    await database.open()
    store = Store(database)
    await store.execute("CREATE TABLE whatsmeow_device (jid text PRIMARY KEY, identity_key bytea NOT NULL)")
    yield store
    await database.close()


async def next_lease(store: Store) -> Lease:
    return await store.leases.begin_epoch("anna", NODE, TTL)


@asynccontextmanager
async def backend(url: str, name: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection as a session process makes it."""
    connection = await asyncpg.connect(url, server_settings={"application_name": name}, statement_cache_size=0)
    try:
        yield connection
    finally:
        connection.terminate()


async def jids(store: Store) -> list[str]:
    return [row["jid"] for row in await store.fetch("SELECT jid FROM whatsmeow_device")]


async def lives(store: Store, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Asked of the server: the client may not have heard of it yet."""
    pid = connection.get_server_pid()
    # It is ended by a signal.
    await asyncio.sleep(0.2)
    return bool(await store.fetch("SELECT FROM pg_stat_activity WHERE pid = $1", pid))


async def waits_for_a_lock(store: Store, name: str) -> None:
    await eventually(
        lambda: store.fetch(
            "SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'", name
        ),
        timeout=5,
    )


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_a_write_of_the_epoch_before_that_waits_for_a_lock_is_never_carried_out(
    store: Store, database_url: str, is_pooled: bool
) -> None:
    old = await connected(store)
    before = await jids(store)
    name = f"{backends_of('anna')}{old.epoch}"
    owned = PostgresOwnedSessions(store.database, encode_payload, StaleBackends(store.database, is_pooled=is_pooled))
    async with backend(database_url, "somebody") as holder, backend(database_url, name) as straggler:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT FROM whatsmeow_device FOR UPDATE")
        writing = asyncio.create_task(straggler.execute(WRITE))
        await waits_for_a_lock(store, name)
        with capture_logs() as logs:
            assert (await owned.prepare(await next_lease(store))).wanted
        assert [(line["session_id"], line["backends"]) for line in logs] == [("anna", 1)]
        await transaction.rollback()
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await writing
        assert await jids(store) == before


async def test_a_write_of_the_epoch_before_that_the_network_kept_is_never_carried_out(
    store: Store, database_url: str
) -> None:
    old = await connected(store)
    before = await jids(store)
    async with (
        TcpProxy(database_url) as line,
        backend(line.url, f"{backends_of('anna')}{old.epoch}") as straggler,
    ):
        kept = line.fall_silent_at(b"UPDATE whatsmeow_device")
        writing = asyncio.create_task(straggler.execute(WRITE))
        await kept.wait()
        await store.owned.prepare(await next_lease(store))
        await line.set(Line.OPEN)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await writing
        assert await jids(store) == before


async def test_nobody_else_s_backend_is_ended(store: Store, database_url: str) -> None:
    old = await connected(store)
    new = await next_lease(store)
    names = {
        "the session's present process": f"zap/anna/{new.epoch}",
        "its next one": f"zap/anna/{new.epoch + 1}",
        "another session's": f"zap/anna-2/{old.epoch}",
        "an orphan's that writes into the log": f"zap-service/anna/{old.epoch}",
        "no epoch": "zap/anna/x",
        "a node": "zap-service/anna",
    }
    async with AsyncExitStack() as stack:
        there = {who: await stack.enter_async_context(backend(database_url, name)) for who, name in names.items()}
        busy = [await stack.enter_async_context(backend(database_url, name)) for name in names.values()]
        working = [asyncio.create_task(one.fetchval("SELECT pg_sleep(0.5) IS NOT NULL")) for one in busy]
        await asyncio.sleep(0.1)
        await store.owned.prepare(new)
        assert {who for who, connection in there.items() if not await lives(store, connection)} == set()
        assert all(await asyncio.gather(*working))


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_an_idle_backend_is_ended_only_where_it_cannot_be_another_session_s_the_next_moment(
    store: Store, database_url: str, is_pooled: bool
) -> None:
    old = await connected(store)
    stragglers = StaleBackends(store.database, is_pooled=is_pooled)
    name = f"{backends_of('anna')}{old.epoch}"
    async with backend(database_url, name) as idle, backend(database_url, name) as in_transaction:
        await in_transaction.execute("BEGIN")
        await stragglers.end(await next_lease(store))
        assert await lives(store, idle) == is_pooled
        assert not await lives(store, in_transaction)


async def test_a_server_that_does_not_let_us_end_backends_keeps_nobody_from_starting(
    store: Store, database_url: str
) -> None:
    await connected(store)
    user = f"zap_{uuid.uuid4().hex}"
    await store.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'any'")
    await store.execute("REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC")
    # The tests' own user is called zap, and finds that schema first.
    await store.execute(f"ALTER ROLE {user} SET search_path = zap, public")
    await store.execute(f"GRANT USAGE ON SCHEMA zap, public TO {user}")
    await store.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA zap, public TO {user}")
    netloc = database_url.partition("//")[2].partition("@")[0]
    database = Database(database_url.replace(netloc, f"{user}:any"), name="test")
    await database.open()
    try:
        owned = PostgresOwnedSessions(database, encode_payload, StaleBackends(database, is_pooled=False))
        with capture_logs() as logs:
            assert (await owned.prepare(await next_lease(store))).wanted
            assert (await owned.prepare(await next_lease(store))).wanted
        assert [line["log_level"] for line in logs] == ["warning"], "once"
    finally:
        await database.close()
        await store.execute(f"DROP OWNED BY {user}")
        await store.execute(f"DROP ROLE {user}")
