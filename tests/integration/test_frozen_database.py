"""A backend that does not answer, as after a failover that nobody was told of: who waits for it stays in charge."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from service.domain.errors import Unavailable
from service.domain.lease import Announcement, LeaseTimes, Node
from service.domain.outage import OutageDetector
from service.ownership.lease_renewer import LeaseRenewer
from service.store.database import Database
from service.store.leases import PostgresLeases
from tests.tcp_proxy import Line, TcpProxy

TIMES = LeaseTimes(10.0)
HERE = Announcement(Node(uuid.uuid4(), "one", "127.0.0.1:1"), 10)
PATIENCE = 4.0
"""Seconds; less than a single wait for a connection that is dead."""


@pytest.fixture
async def renewals(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, name="frozen/leases", size=1)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def outages() -> OutageDetector:
    return OutageDetector(TIMES.ttl, time.monotonic())


@pytest.fixture
def keeper(renewals: Database, outages: OutageDetector) -> LeaseRenewer:
    return LeaseRenewer(PostgresLeases(renewals, renewals), lambda: HERE, TIMES, lambda: (), outages)


@contextmanager
def frozen(backend: int) -> Iterator[None]:
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


async def backend_of(admin: "asyncpg.Connection[asyncpg.Record]") -> int:
    pid: int = await admin.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'frozen/leases'")
    return pid


async def test_a_renewal_on_a_dead_connection_leaves_time_for_the_next(
    keeper: LeaseRenewer, outages: OutageDetector, postgres_admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await keeper.renew()
    confirmed = outages.renewed_at
    with frozen(await backend_of(postgres_admin)):
        began = time.monotonic()
        await keeper.renew()
        assert outages.renewed_at == confirmed
        assert time.monotonic() - began < 2 * TIMES.renew_timeout, "the budget of LeaseTimes.slack"
        await keeper.renew()
        assert outages.renewed_at > confirmed, "the next one has a connection of its own"


async def test_connections_that_a_network_has_forgotten_cost_one_wait_and_not_one_each(database_url: str) -> None:
    async with TcpProxy(database_url) as line:
        database = Database(line.url, name="forgotten", size=4)
        await database.open()

        async def ask() -> None:
            async with database.transaction() as connection:
                await connection.value("current_epoch", "anna")

        async with database.transaction(), database.transaction(), database.transaction(), database.transaction():
            pass
        await line.set(Line.FORGOTTEN)
        with pytest.raises(Unavailable):
            await ask()
        async with asyncio.timeout(PATIENCE):
            for _ in range(4):
                await ask()
        await database.close()


async def test_what_is_cancelled_while_the_database_is_silent_is_cancelled_and_not_in_an_outage(
    keeper: LeaseRenewer, renewals: Database, postgres_admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async def ask() -> None:
        async with renewals.transaction() as connection:
            await connection.value("current_epoch", "anna")

    await keeper.renew()
    with frozen(await backend_of(postgres_admin)):
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait((asking,), timeout=10)
        # Whoever takes it for an outage tries again, and is never rid of.
        assert asking.cancelled()
