"""Who holds Watch up, on a real Postgres: whoever has written something, in whatever database, and nobody else."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from dev import EmbeddedPostgres
from service.domain.maintenance import OldestTransaction
from service.store.database import Database
from service.store.maintenance import SESSION_SETTINGS, PostgresMaintenance
from service.store.startup_checks import DatabaseUnreachable, refuse_prepared_transactions
from tests.e2e.sql import Sql


class TwoPhasePostgres(EmbeddedPostgres):
    """One that allows prepared transactions."""

    def _command(self) -> list[str]:
        return [
            part.replace("max_prepared_transactions=0", "max_prepared_transactions=5") for part in super()._command()
        ]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, server_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """One of its own: nobody else's transactions are in it."""
    folder = server_folder / "two-phase"
    folder.mkdir(mode=0o711)
    async with TwoPhasePostgres(folder, durable=False, die_with_starter=True) as running:
        yield running


@pytest.fixture
async def upkeep(server: EmbeddedPostgres) -> AsyncIterator[PostgresMaintenance]:
    database = Database(server.url, name="test/upkeep", size=1, timeouts=SESSION_SETTINGS)
    await database.open()
    yield PostgresMaintenance(database)
    await database.close()


@pytest.fixture
async def neighbour(server: EmbeddedPostgres) -> AsyncIterator[Sql]:
    """Somebody in another database of the server."""
    connection = await asyncpg.connect(server.url_of("postgres"), server_settings={"application_name": "shop"})
    yield connection
    await connection.close()


async def holder_such(
    upkeep: PostgresMaintenance, such: Callable[[OldestTransaction | None], bool]
) -> OldestTransaction | None:
    """The server's own workers hold it for a moment as well."""
    async with asyncio.timeout(30):
        while not such(holder := await upkeep.horizon_holder()):
            await asyncio.sleep(0.01)
    return holder


async def test_whoever_writes_holds_it_and_the_oldest_one_is_named(upkeep: PostgresMaintenance, neighbour: Sql) -> None:
    async with neighbour.transaction():
        xid = int(await neighbour.fetchval("SELECT pg_current_xact_id()::text"))
        pid = await neighbour.fetchval("SELECT pg_backend_pid()")
        holder = await holder_such(upkeep, lambda each: each is not None and each.xid == xid)
        assert holder == OldestTransaction(xid, "postgres", "shop", pid, "idle in transaction")
    await holder_such(upkeep, lambda each: each is None)


async def test_whoever_only_reads_holds_nothing(upkeep: PostgresMaintenance, neighbour: Sql) -> None:
    async with neighbour.transaction(isolation="repeatable_read"):
        assert await neighbour.fetchval("SELECT count(*) FROM pg_class")
        await holder_such(upkeep, lambda each: each is None)


async def test_what_a_role_may_not_see_is_somebody_s(server: EmbeddedPostgres, neighbour: Sql) -> None:
    user = f"plain_{uuid.uuid4().hex}"
    await neighbour.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'plain'")
    url = server.url.replace("//zap:", f"//{user}:").replace(server.url.split(":")[2].split("@")[0], "plain", 1)
    database = Database(url, name="test", size=1)
    await database.open()
    async with neighbour.transaction():
        xid = int(await neighbour.fetchval("SELECT pg_current_xact_id()::text"))
        holder = await holder_such(PostgresMaintenance(database), lambda each: each is not None and each.xid == xid)
    assert holder is not None
    assert holder.state == "unknown"
    await database.close()


async def test_a_prepared_transaction_holds_it_and_is_refused_at_the_start(
    server: EmbeddedPostgres, upkeep: PostgresMaintenance, neighbour: Sql
) -> None:
    await neighbour.execute("CREATE TABLE IF NOT EXISTS orders (id int)")
    await neighbour.execute("BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'it''s mine'")
    holder = await holder_such(upkeep, lambda each: each is not None and each.state == "prepared")
    assert holder is not None
    assert (holder.database, holder.application, holder.pid) == ("postgres", "it's mine", 0)
    with pytest.raises(DatabaseUnreachable, match=r"ROLLBACK PREPARED 'it''s mine'") as refused:
        await refuse_prepared_transactions(server.url, "DATABASE_URL", grace=0.0)
    assert "in the database postgres" in str(refused.value)
    await neighbour.execute("ROLLBACK PREPARED 'it''s mine'")


async def test_one_that_is_ended_meanwhile_is_no_reason_to_refuse(server: EmbeddedPostgres, neighbour: Sql) -> None:
    await neighbour.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'first'")
    starting = asyncio.create_task(refuse_prepared_transactions(server.url, "DATABASE_URL", grace=60.0))
    await asyncio.sleep(0.1)
    assert not starting.done()
    await neighbour.execute("COMMIT PREPARED 'first'")
    with capture_logs() as logs:
        async with asyncio.timeout(30):
            await starting
    assert [line["log_level"] for line in logs] == ["warning"]


async def test_a_server_that_allows_none_is_none_to_warn_of(database_url: str) -> None:
    with capture_logs() as logs:
        await refuse_prepared_transactions(database_url, "DATABASE_URL")
    assert logs == []
