"""Locks and transactions that others leave open: nobody waits longer than Postgres has been told to let them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from dev import EmbeddedPostgres
from simulator.control import SimulatorControl
from tests.e2e.cluster import cluster
from tests.e2e.conftest import LEASE_TTL
from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess
from tests.traffic import Kind

COME_BACK = LEASE_TTL + 3.0
MUCH = 100.0
"""Messages a second: something is always between WhatsApp, the library, the process and its node."""
BUSY = 5.0
"""Seconds that a machine may need besides the bound, if it runs other tests as well."""


async def an_append_behind(sql: Sql) -> int | None:
    """Wait for an append that waits for our row, and has a session's log locked; its backend. For use in a transaction.

    None: there is none within a second, for example because a change of state was first to wait.
    """
    for _ in range(100):
        pid: int | None = await sql.fetchval(
            "SELECT pid FROM pg_locks waiting JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND transactionid = pg_current_xact_id()::xid AND query LIKE '%append_inbound%'"
            " AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = waiting.pid AND locktype = 'advisory' AND granted)"
        )
        if pid is not None:
            return pid
        await asyncio.sleep(0.01)
    return None


async def freeze_in_an_append(node: ServiceProcess, sql: Sql, held: str) -> int:
    """Freeze a node while an append of this session waits for its row; its backend, which goes on."""
    async with asyncio.timeout(BUSY):
        while True:
            async with sql.transaction():
                await sql.execute("SELECT FROM zap.session WHERE session_id = $1 FOR UPDATE", held)
                if (backend := await an_append_behind(sql)) is not None:
                    os.kill(node.pid, signal.SIGSTOP)
                    return backend


async def state_of(sql: Sql, pid: int) -> str | None:
    """Of a backend; None: it has ended."""
    state: str | None = await sql.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", pid)
    return state


@pytest.mark.timeout(180)
async def test_a_node_frozen_in_the_middle_of_an_append_holds_no_other_node_up(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with cluster(node_environment, simulator, 2, nodes=2, on_first=True) as there:
        frozen, target = there.nodes
        held = there.sessions[0]
        epochs = await there.epochs(target)
        async with there.traffic(MUCH, personal=(Kind.TEXT,), in_group=()) as traffic:
            await traffic.reach(5)
            backend = await freeze_in_an_append(frozen, sql, held)
            try:
                async with asyncio.timeout(BUSY):
                    while (state := await state_of(sql, backend)) == "active":
                        await asyncio.sleep(0.01)
                # An append is one statement: Postgres has carried it out, and no transaction is left open.
                assert state == "idle"
                await there.came_back(target, there.sessions, epochs, COME_BACK + BUSY)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            await traffic.reach(5)
        await there.assert_log_is_whole(sql, traffic.written)
        await there.assert_one_owner_at_a_time()


@asynccontextmanager
async def busy_neighbour(server: EmbeddedPostgres, admin: Sql, ours: Sql) -> AsyncIterator[None]:
    """Another database of the server, where a transaction has a number and locks of the names of ours."""
    await admin.execute("CREATE DATABASE neighbour")
    connection = await asyncpg.connect(server.url_of("neighbour"))
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            for name in ("s0", "s1"):
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('zap.event:' || $1, 0))", name)
            yield
            number = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
            assert number < await ours.fetchval("SELECT max(xid)::text::bigint FROM zap.event"), "it was open meanwhile"
    finally:
        await connection.close()
        await admin.execute("DROP DATABASE neighbour WITH (FORCE)")


@pytest.mark.timeout(180)
async def test_an_open_transaction_in_a_neighbouring_database_holds_nothing_up(
    node_environment: dict[str, str],
    simulator: SimulatorControl,
    sql: Sql,
    postgres_server: EmbeddedPostgres,
    postgres_admin: Sql,
) -> None:
    async with (
        busy_neighbour(postgres_server, postgres_admin, sql),
        cluster(node_environment, simulator, 2, nodes=2, on_first=True) as there,
    ):
        killed, target = there.nodes
        epochs = await there.epochs(target)
        async with there.traffic(10.0) as traffic:
            await traffic.reach(5)
            await killed.kill_node()
            await there.came_back(target, there.sessions, epochs, COME_BACK + BUSY)
            await traffic.reach(5)
        await there.assert_log_is_whole(sql, traffic.written)
        await there.assert_one_owner_at_a_time()
