"""Which node claims what, on a real Postgres: its own places at once, what another one leaves only after a moment."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from service.domain.lease import Announcement, Node
from service.domain.placement import CLAIM_GRACE_S
from service.store.database import Database
from service.store.leases import PostgresLeases

TTL = 30.0
FAR = 3600.0
"""Seconds; no test takes so long."""


def new_node(number: int) -> Node:
    return Node(uuid.UUID(int=number), f"node-{number}", f"127.0.0.1:{number}")


@dataclass
class Shared:
    """A database that nodes share, each with connections of its own."""

    url: str
    databases: list[Database] = field(default_factory=list)

    async def connect(self) -> PostgresLeases:
        database = Database(self.url, name="test")
        await database.open()
        self.databases.append(database)
        return PostgresLeases(database, database)

    async def run(self, sql: str, *arguments: object) -> None:
        async with self.databases[0].transaction() as connection:
            await connection._raw.execute(sql, *arguments)

    async def be_due(self, sessions: int, *, since: float = -FAR, state: str = "RECONNECTING") -> None:
        """So many more are wanted and nobody's, for so many seconds; less than none: nobody gets impatient."""
        await self.run(
            "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch,"
            " desired_state, state, credentials, identity_key, attempts, update_time)"
            " SELECT lower($3) || n, '', '', '{}', '', '', 0, 'ACTIVE', $3,"
            " CASE $3 WHEN 'PAIRING' THEN 'NONE' ELSE 'CONFIRMED' END, sha256(($3 || n)::bytea), 1,"
            " clock_timestamp() - make_interval(secs => $2)"
            " FROM (SELECT count(*) AS before FROM zap.session) s, generate_series(before + 1, before + $1) n",
            sessions,
            since,
            state,
        )


@pytest.fixture
async def shared(database_url: str) -> AsyncIterator[Shared]:
    made = Shared(database_url)
    await made.connect()
    yield made
    for database in made.databases:
        await database.close()


class Claimant:
    """A node, as far as claims are concerned."""

    def __init__(self, shared: Shared, number: int, most: int = 200) -> None:
        self._shared = shared
        self.node = new_node(number)
        self._most = most
        self.owned: list[str] = []

    async def announce(self, *, is_draining: bool = False) -> None:
        self.leases = await self._shared.connect()
        await self.leases.renew(Announcement(self.node, self._most, is_draining), TTL)

    async def claim(self, limit: int = 100, *, pairings: bool = False) -> int:
        """How many it got."""
        found = await self.leases.claim(self.node.incarnation, self.node.name, TTL, limit, pairings=pairings)
        self.owned += found
        return len(found)


async def claimants(shared: Shared, *owned: int, most: int = 200) -> list[Claimant]:
    """Nodes that are heard of, and own so many sessions, the smallest incarnation first."""
    made = [Claimant(shared, number, most) for number in range(1, len(owned) + 1)]
    for one, sessions in zip(made, owned, strict=True):
        await one.announce()
        await shared.run(
            "INSERT INTO zap.lease (session_id, incarnation, node, renewed_at, expires_at)"
            " SELECT $2 || '-' || n, $1, $2, now(), now() + interval '1 h' FROM generate_series(1, $3) n",
            one.node.incarnation,
            one.node.name,
            sessions,
        )
    return made


@pytest.mark.parametrize("seed", range(3))
async def test_a_hundred_sessions_that_three_nodes_claim_at_once_are_claimed_once_and_spread(
    shared: Shared, seed: int
) -> None:
    nodes = await claimants(shared, 0, 0, 0)
    await shared.be_due(100)
    chance = random.Random(seed)

    async def claim_all(node: Claimant) -> None:
        while sum(len(one.owned) for one in nodes) < 100:
            await node.claim(chance.randint(1, 5))
            await asyncio.sleep(chance.random() * 0.01)

    await asyncio.gather(*map(claim_all, nodes))
    claimed = [session_id for node in nodes for session_id in node.owned]
    assert len(set(claimed)) == len(claimed) == 100
    assert [len(node.owned) for node in nodes] == [34, 33, 33]


async def test_nodes_that_ask_in_the_same_moment_get_different_sessions(shared: Shared) -> None:
    nodes = await claimants(shared, 0, 0, 0)
    await shared.be_due(30)
    assert await asyncio.gather(*(node.claim(5) for node in nodes)) == [5, 5, 5]


async def test_what_is_late_goes_to_its_own_node_first_all_the_same(shared: Shared) -> None:
    nodes = await claimants(shared, 0, 0, 0)
    await shared.be_due(30, since=FAR)
    assert await asyncio.gather(*(node.claim(10) for node in nodes)) == [10, 10, 10]


async def test_nodes_that_all_want_all_that_is_late_do_not_wait_for_each_other_in_a_circle(shared: Shared) -> None:
    nodes = await claimants(shared, 0, 0, 0, most=10_000)
    for _ in range(3):
        await shared.be_due(1000, since=FAR)
        assert sum(await asyncio.gather(*(node.claim(1000) for node in nodes))) == 1000
    claimed = [session_id for node in nodes for session_id in node.owned]
    assert len(set(claimed)) == len(claimed) == 3000


async def test_the_node_with_the_fewest_is_given_what_is_new(shared: Shared) -> None:
    most, fewest = await claimants(shared, 5, 2)
    await shared.be_due(1)
    await shared.be_due(1, state="PAIRING")
    assert await most.claim() == await most.claim(pairings=True) == 0
    assert await fewest.claim() == await fewest.claim(pairings=True) == 1


async def test_a_node_that_stops_or_is_not_heard_of_is_not_waited_for(shared: Shared) -> None:
    node, stops, dead = await claimants(shared, 5, 0, 0)
    await stops.announce(is_draining=True)
    # Its leases may have ended a moment before its row does.
    await shared.run(
        "UPDATE zap.node SET expires_at = clock_timestamp() + interval '0.3 s' WHERE incarnation = $1",
        dead.node.incarnation,
    )
    await shared.be_due(3)
    assert await node.claim() == 3


async def test_nobody_takes_more_than_it_has_said(shared: Shared) -> None:
    nodes = await claimants(shared, 1, 0, most=2)
    await shared.be_due(5)
    assert [await node.claim() for node in nodes] == [1, 2]


async def test_what_its_node_leaves_is_anybody_s_after_a_moment(shared: Shared) -> None:
    node, _frozen = await claimants(shared, 4, 0)
    await shared.be_due(2, since=0.0)
    assert await node.claim() == 0
    counts = await node.leases.fleet_counts(node.node.incarnation)
    assert (counts.due, counts.late) == (2, 0)
    assert counts.next_due is not None
    assert 0 < counts.next_due <= CLAIM_GRACE_S, "the next look is when they are"
    await asyncio.sleep(counts.next_due)
    counts = await node.leases.fleet_counts(node.node.incarnation)
    assert (counts.due, counts.late) == (2, 2)
    assert await node.claim() == 2


async def test_a_session_is_due_since_its_lease_ran_out_or_its_next_attempt_came(shared: Shared) -> None:
    node, other = await claimants(shared, 4, 0)
    await shared.be_due(2, since=FAR)
    await shared.run(
        "UPDATE zap.lease SET incarnation = $1, node = 'gone', renewed_at = now() - interval '1 h',"
        " expires_at = clock_timestamp() WHERE session_id = 'reconnecting1'",
        uuid.uuid4(),
    )
    await shared.run("UPDATE zap.session SET next_attempt_at = clock_timestamp() WHERE session_id = 'reconnecting2'")
    assert await node.claim() == 0
    assert (await node.leases.fleet_counts(node.node.incarnation)).late == 0
    assert await other.claim() == 2


async def test_a_count_says_who_takes_what_is_due_and_asks_nobody_while_nothing_is(shared: Shared) -> None:
    node, other = await claimants(shared, 4, 1)
    assert (await node.leases.fleet_counts(node.node.incarnation)).candidates == ()
    await shared.be_due(1, since=FAR, state="PAIRING")
    counts = await node.leases.fleet_counts(node.node.incarnation)
    assert (counts.pairings, counts.late_pairings, counts.due, counts.late) == (1, 1, 0, 0)
    assert {(one.node, one.sessions) for one in counts.candidates} == {(node.node, 4), (other.node, 1)}


async def test_a_count_sees_all_that_is_wanted_whatever_the_planner_expects(shared: Shared) -> None:
    """It expects one, by statistics of a time at which nothing was wanted: so each was given a time of its own."""
    (node,) = await claimants(shared, 0)
    await shared.be_due(20, since=FAR)
    await shared.run("UPDATE zap.session SET desired_state = 'INACTIVE', state = 'DISCONNECTED'")
    await shared.run("ANALYZE zap.session, zap.lease")
    await shared.run(
        "UPDATE zap.session SET desired_state = 'ACTIVE', state = 'RECONNECTING'"
        " WHERE session_id IN ('reconnecting1', 'reconnecting2')"
    )
    counts = await node.leases.fleet_counts(node.node.incarnation)
    assert counts.due == 2


async def test_after_an_outage_a_node_that_was_there_before_is_awaited_and_none_other(shared: Shared) -> None:
    node, other, stops = await claimants(shared, 0, 0, 0)
    await stops.announce(is_draining=True)
    assert not await node.leases.others_are_awaited(60.0)
    # The outage: their rows expire, and only one of them is back.
    await shared.run("UPDATE zap.node SET expires_at = clock_timestamp() - interval '20 s'")
    await node.leases.renew(Announcement(node.node, 200), TTL)
    assert await node.leases.others_are_awaited(30.0)
    assert not await node.leases.others_are_awaited(10.0), "it had not been heard of when the outage began"
    await other.announce()
    assert not await node.leases.others_are_awaited(30.0)


async def test_what_is_another_node_s_is_left_to_it_for_as_long_as_is_said(shared: Shared) -> None:
    node, _other = await claimants(shared, 4, 0)
    await shared.be_due(2, since=60.0)
    counts = await node.leases.fleet_counts(node.node.incarnation, 120.0)
    assert (counts.due, counts.late) == (2, 0)
    assert await node.leases.claim(node.node.incarnation, "node-1", TTL, 10, pairings=False, grace_s=120.0) == []
    assert len(await node.leases.claim(node.node.incarnation, "node-1", TTL, 10, pairings=False)) == 2


async def test_those_that_share_sessions_are_all_that_go_on_unless_one_stops(shared: Shared) -> None:
    node, other, dead = await claimants(shared, 4, 1, 0)
    await shared.run("UPDATE zap.node SET expires_at = clock_timestamp() WHERE incarnation = $1", dead.node.incarnation)
    assert {(one.node, one.sessions) for one in await node.leases.fleet()} == {(node.node, 4), (other.node, 1)}
    await other.announce(is_draining=True)
    assert await node.leases.fleet() == ()
    # It was killed before it had stopped.
    await shared.run(
        "UPDATE zap.node SET expires_at = clock_timestamp() WHERE incarnation = $1", other.node.incarnation
    )
    assert [one.node for one in await node.leases.fleet()] == [node.node]


async def test_the_idlest_are_those_that_are_connected_and_had_nothing_to_do_for_longest(shared: Shared) -> None:
    node, other = await claimants(shared, 0, 0)
    await shared.be_due(7, state="CONNECTED")
    await shared.run(
        "UPDATE zap.lease SET epoch = 1, incarnation = $1, node = 'node-1', renewed_at = now(),"
        " expires_at = now() + interval '1 h'",
        node.node.incarnation,
    )
    await shared.run(
        "UPDATE zap.session SET connected_epoch = 1, paired_at = now() - interval '1 month',"
        " last_inbound_at = now() - make_interval(mins => right(session_id, 1)::int)"
    )
    await shared.run("UPDATE zap.session SET last_acknowledged_send_at = now() WHERE session_id = 'connected5'")
    await shared.run("UPDATE zap.session SET state = 'RECONNECTING' WHERE session_id = 'connected6'")
    await shared.run("UPDATE zap.lease SET is_revoked = true WHERE session_id = 'connected4'")
    await shared.run("UPDATE zap.lease SET incarnation = $1 WHERE session_id = 'connected3'", other.node.incarnation)
    idlest = await node.leases.idlest(node.node.incarnation, 10)
    assert idlest == ["connected7", "connected2", "connected1", "connected5"]
    assert await node.leases.idlest(node.node.incarnation, 1) == ["connected7"]
    # Another process of it begins: it is not connected as long as nothing says so.
    await shared.run("UPDATE zap.lease SET epoch = 2 WHERE session_id = 'connected7'")
    assert await node.leases.idlest(node.node.incarnation, 1) == ["connected2"]
