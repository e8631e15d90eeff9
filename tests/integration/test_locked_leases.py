"""Somebody holds the row of one lease, as a node does that was frozen in the middle of a transaction."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from service.domain.lease import Announcement, LeaseTimes, Node
from service.domain.outage import OutageDetector
from service.domain.session import Activate
from service.ownership.lease_expiry import LeaseExpiryMonitor
from service.ownership.lease_renewer import LeaseRenewer
from service.store.database import Database
from service.store.leases import PostgresLeases
from tests.integration.test_store import Store

TIMES = LeaseTimes(3.0)
NODE = uuid.uuid4()
HERE = Announcement(Node(NODE, "here", "127.0.0.1:1"), 10)
IDS = ("anna", "berta", "carla")


class Session:
    """A runner, as far as its lease is concerned: it believes what it is told."""

    def __init__(self, session_id: str, safe_until: float) -> None:
        self.session_id = session_id
        self.safe_until = safe_until
        self.is_lost = False

    def permit(self, safe_until: float) -> None:
        self.safe_until = safe_until

    def lose(self) -> None:
        self.is_lost = True


class Owned:
    """Three sessions of one node, with what keeps and fences their leases, as service/node/wiring.py wires it."""

    def __init__(self, store: Store, renewals: Database, sessions: Sequence[Session]) -> None:
        self.store = store
        self.by_id = {session.session_id: session for session in sessions}
        leases = PostgresLeases(store.database, renewals)
        self.keeper = LeaseRenewer(leases, lambda: HERE, TIMES, self._all, OutageDetector(TIMES.ttl, time.monotonic()))
        self.fence = LeaseExpiryMonitor(TIMES, self._all)

    def _all(self) -> Sequence[Session]:
        return list(self.by_id.values())

    async def go_on_for(self, seconds: float) -> None:
        """Renew and fence."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(self.keeper.run())
                group.create_task(self.fence.run())


@pytest.fixture
async def owned(database_url: str) -> AsyncIterator[Owned]:
    quick = f"{TIMES.renew_timeout}s"
    database = Database(database_url, name="test")
    renewals = Database(
        database_url, name="leases", size=1, timeouts={"statement_timeout": quick, "lock_timeout": quick}
    )
    await database.open()
    await renewals.open()
    store = Store(database)
    for session_id in IDS:
        await store.create(session_id)
        await store.wish(session_id, Activate())
    sent = time.monotonic()
    await store.leases.claim(NODE, "here", TIMES.ttl, len(IDS), pairings=True)
    for session_id in IDS:
        await store.leases.begin_epoch(session_id, NODE, TIMES.ttl)
    yield Owned(store, renewals, [Session(session_id, TIMES.safe_until(sent)) for session_id in IDS])
    await renewals.close()
    await database.close()


@asynccontextmanager
async def somebody_holding(database_url: str, session_id: str) -> AsyncIterator[None]:
    """Another connection, in the middle of a transaction that has touched the lease of a session."""
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("UPDATE zap.lease SET is_revoked = true WHERE session_id = $1", session_id)
    try:
        yield
    finally:
        await transaction.rollback()
        await connection.close()


async def test_a_lease_that_somebody_holds_holds_up_no_other_and_survives_a_moment(
    owned: Owned, database_url: str
) -> None:
    held, *others = owned.by_id.values()
    async with somebody_holding(database_url, held.session_id):
        began = time.monotonic()
        renewal = await owned.store.leases.renew(HERE, TIMES.ttl)
        assert time.monotonic() - began < TIMES.renew_timeout / 2, "it waits for nobody"
        assert [lease.session_id for lease in renewal.held_up] == [held.session_id]
        before = held.safe_until
        await owned.go_on_for(TIMES.renew_every)
        assert held.safe_until == before
        assert all(other.safe_until > before for other in others)
    await owned.go_on_for(TIMES.renew_every)
    assert held.safe_until > before
    assert not held.is_lost


async def test_a_lease_that_somebody_goes_on_holding_is_fenced_alone_and_before_it_ends(
    owned: Owned, database_url: str
) -> None:
    held, *others = owned.by_id.values()
    async with somebody_holding(database_url, held.session_id):
        await owned.go_on_for(TIMES.ttl + 0.5)
        assert held.is_lost
        assert not any(other.is_lost for other in others)
    renewal = await owned.store.leases.renew(HERE, TIMES.ttl)
    assert [lease.session_id for lease in renewal.renewed] == [other.session_id for other in others], "it ran out"
    assert not renewal.held_up
    # Free again, for whoever is there.
    there = Node(uuid.uuid4(), "there", "127.0.0.1:2")
    await owned.store.leases.renew(Announcement(there, 10), TIMES.ttl)
    claimed = await owned.store.leases.claim(there.incarnation, there.name, TIMES.ttl, 5, pairings=True)
    assert claimed == [held.session_id]


async def test_a_lease_that_was_given_away_while_the_renewal_looked_is_not_renewed(
    owned: Owned, database_url: str
) -> None:
    target = uuid.uuid4()
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("UPDATE zap.lease SET incarnation = $1 WHERE session_id = 'anna'", target)
        renewal = await owned.store.leases.renew(HERE, TIMES.ttl)
        assert [lease.session_id for lease in renewal.held_up] == ["anna"], "nobody knows yet what becomes of it"
    renewal = await owned.store.leases.renew(HERE, TIMES.ttl)
    assert [lease.session_id for lease in (*renewal.renewed, *renewal.held_up)] == ["berta", "carla"]
    await connection.close()
