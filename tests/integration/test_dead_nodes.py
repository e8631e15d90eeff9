"""Which nodes of a machine are known on a real Postgres, and what the end of one's leases changes."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest

from service.domain.lease import Announcement, Node
from service.store.database import Database
from service.store.leases import PostgresLeases

TTL = 60.0
SCOPE = "boot-1/4:1001"


@dataclass
class Member:
    """A node with a connection of its own, which it loses when it dies."""

    leases: PostgresLeases
    database: Database
    scope: str | None = SCOPE
    node: Node = field(default_factory=lambda: Node(uuid.uuid4(), "node", "127.0.0.1:1"))

    async def renew(self) -> Sequence[str]:
        renewal = await self.leases.renew(Announcement(self.node, 10, liveness_scope=self.scope), TTL)
        return sorted(lease.session_id for lease in renewal.renewed)

    async def neighbours(self) -> set[uuid.UUID]:
        assert self.scope is not None
        return set(await self.leases.neighbours(self.node.incarnation, self.scope))

    async def die(self) -> None:
        await self.database.close()


@dataclass
class Cluster:
    url: str
    sql: "asyncpg.Connection[asyncpg.Record]"
    members: list[Member] = field(default_factory=list)

    async def join(self, scope: str | None = SCOPE, sessions: int = 2) -> Member:
        """A node that is heard of and owns so many sessions."""
        database = Database(self.url, name="test", size=1)
        await database.open()
        member = Member(PostgresLeases(database, database), database, scope)
        self.members.append(member)
        await member.renew()
        await self.lease_to(member, *(f"{member.node.incarnation}-{number}" for number in range(sessions)))
        return member

    async def lease_to(self, member: Member, *session_ids: str) -> None:
        await self.sql.executemany(
            "INSERT INTO zap.lease (session_id, incarnation, node, renewed_at, expires_at)"
            " VALUES ($1, $2, 'node', clock_timestamp(), clock_timestamp() + interval '1 min')",
            [(session_id, member.node.incarnation) for session_id in session_ids],
        )

    async def live(self, member: Member) -> int:
        """Return how many leases of it have not expired."""
        sql = "SELECT count(*) FROM zap.lease WHERE incarnation = $1 AND expires_at > clock_timestamp()"
        return int(await self.sql.fetchval(sql, member.node.incarnation))

    async def wait_until_gone(self, member: Member) -> None:
        """Until Postgres has noticed that the node's connection ended."""
        sql = (
            "SELECT EXISTS (SELECT FROM pg_stat_activity JOIN zap.node ON pid = backend_pid WHERE node.incarnation = $1"
            " AND datname = current_database())"
        )
        while await self.sql.fetchval(sql, member.node.incarnation):
            pass


@pytest.fixture
async def cluster(database_url: str) -> AsyncIterator[Cluster]:
    made = Cluster(database_url, await asyncpg.connect(database_url))
    yield made
    for member in made.members:
        await member.database.close()
    await made.sql.close()


async def test_neighbours_are_other_nodes_of_the_same_boot_and_namespace(cluster: Cluster) -> None:
    here, there = await cluster.join(), await cluster.join()
    for scope in ("boot-2/4:1001", "boot-1/4:1002", None):
        await cluster.join(scope)
    assert await here.neighbours() == {there.node.incarnation}
    assert await there.neighbours() == {here.node.incarnation}


async def test_a_node_that_was_there_before_the_column_is_never_a_neighbour(cluster: Cluster) -> None:
    here, old = await cluster.join(), await cluster.join()
    await cluster.sql.execute(
        "UPDATE zap.node SET liveness_scope = NULL, backend_pid = NULL WHERE incarnation = $1", old.node.incarnation
    )
    assert await here.neighbours() == set()


async def test_a_node_that_neither_lives_nor_owns_anything_is_no_neighbour(cluster: Cluster) -> None:
    here, there = await cluster.join(), await cluster.join(sessions=0)
    await cluster.sql.execute(
        "UPDATE zap.node SET expires_at = clock_timestamp() WHERE incarnation = $1", there.node.incarnation
    )
    assert await here.neighbours() == set()
    # A claim that was carried out when the node's row had expired already.
    await cluster.lease_to(there, "late")
    assert await here.neighbours() == {there.node.incarnation}


async def test_a_dead_node_s_leases_end_and_nobody_else_s(cluster: Cluster) -> None:
    here, dead, other = await cluster.join(), await cluster.join(), await cluster.join()
    await dead.die()
    await cluster.wait_until_gone(dead)
    assert await here.leases.end_leases(dead.node.incarnation) == 2
    assert [await cluster.live(one) for one in (here, dead, other)] == [2, 0, 2]
    assert await here.neighbours() == {other.node.incarnation}
    candidates = await here.leases.targets(here.node.incarnation)
    assert [one.node.incarnation for one in candidates] == [other.node.incarnation], "it takes nothing any more"
    assert await here.leases.end_leases(dead.node.incarnation) == 0
    assert len(await other.renew()) == 2


async def test_a_node_that_postgres_still_serves_loses_nothing(cluster: Cluster) -> None:
    """As on a machine that is the copy of this one: its boot id is the same, and its socket is not here."""
    here, there = await cluster.join(), await cluster.join()
    assert await here.leases.end_leases(there.node.incarnation) is None
    assert await cluster.live(there) == 2
    assert there.node.incarnation in {one.node.incarnation for one in await here.leases.targets(here.node.incarnation)}
    # Its connection was made anew: the next renewal says so.
    await there.database.close()
    await there.database.open()
    assert len(await there.renew()) == 2
    assert await here.leases.end_leases(there.node.incarnation) is None


async def test_a_lease_whose_row_is_locked_ends_with_the_next_call(cluster: Cluster) -> None:
    here, dead = await cluster.join(), await cluster.join()
    await dead.die()
    await cluster.wait_until_gone(dead)
    locked = f"{dead.node.incarnation}-0"
    async with cluster.sql.transaction():
        await cluster.sql.execute("SELECT FROM zap.lease WHERE session_id = $1 FOR UPDATE", locked)
        assert await here.leases.end_leases(dead.node.incarnation) == 1
        assert await here.neighbours() == {dead.node.incarnation}
    assert await here.leases.end_leases(dead.node.incarnation) == 1
    assert await here.neighbours() == set()


async def test_a_renewal_that_arrives_after_its_node_s_death_revives_no_lease(cluster: Cluster) -> None:
    here, dead = await cluster.join(), await cluster.join()
    await dead.die()
    await cluster.wait_until_gone(dead)
    assert await here.leases.end_leases(dead.node.incarnation) == 2
    # What the network kept, and Postgres carries out now.
    late = Member(here.leases, here.database, node=dead.node)
    assert await late.renew() == []
    assert await here.neighbours() == {dead.node.incarnation}, "its row is live once more"
