"""What a look at a database of many sessions reads, by Postgres's own account: what it shows, and not all there is."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.domain.fleet_counts import FleetCounts
from service.domain.lease import Announcement, Node
from service.store.database import Database
from service.store.leases import PostgresLeases
from service.store.queries import statement

SESSIONS = 3000
TTL = 30.0
NODE, OTHER = Node(uuid.UUID(int=1), "here", "127.0.0.1:1"), Node(uuid.UUID(int=2), "there", "127.0.0.1:2")


class Looks:
    """A database on which statements are explained."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.leases = PostgresLeases(database, database)

    async def run(self, sql: str, *arguments: object) -> None:
        async with self._database.transaction() as connection:
            await connection._raw.execute(sql, *arguments)

    async def plan(self, name: str, *arguments: object) -> dict[str, Any]:
        """How a statement was carried out; not its first time on the connection, which reads catalogs."""
        async with self._database.transaction() as connection:
            await connection.rows(name, *arguments)
            explained = await connection._raw.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement(name)}", *arguments
            )
        plan: dict[str, Any] = json.loads(explained)[0]["Plan"]
        return plan


@pytest.fixture
async def looks(database_url: str) -> AsyncIterator[Looks]:
    database = Database(database_url, name="test")
    await database.open()
    made = Looks(database)
    await made.run(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch,"
        " desired_state, state)"
        " SELECT lpad(n::text, 5, '0'), '', 'user-' || n % 10, jsonb_build_object('team', (n % 10)::text), '', '', 0,"
        " 'ACTIVE', CASE WHEN n % 10 = 7 THEN 'FAILED' ELSE 'RECONNECTING' END FROM generate_series(1, $1) n",
        SESSIONS,
    )
    await made.run("ANALYZE zap.session")
    yield made
    await database.close()


@pytest.mark.parametrize("filters", [("", [], {}), ("user-7", [], {}), ("", [], {"team": "7"}), ("", ["FAILED"], {})])
async def test_a_page_of_sessions_costs_what_is_on_it(
    looks: Looks, filters: tuple[str, list[str], dict[str, str]]
) -> None:
    page = await looks.plan("list_sessions", "00100", *filters, 10)
    assert page["Actual Rows"] == 10
    assert page["Shared Hit Blocks"] + page["Shared Read Blocks"] < SESSIONS / 5, "each session that is read costs some"


@pytest.fixture
async def owned(looks: Looks) -> Looks:
    """All that are wanted are a node's that is heard of."""
    await looks.run(
        "UPDATE zap.lease SET incarnation = $1, renewed_at = now(), expires_at = now() + interval '30 s'",
        NODE.incarnation,
    )
    await looks.leases.renew(Announcement(NODE, SESSIONS), TTL)
    await looks.run("ANALYZE zap.lease, zap.session")
    return looks


def most_rows(plan: dict[str, Any]) -> int:
    """Of all steps, the rows of the one that saw the most."""
    seen: int = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return max(seen, *map(most_rows, plan["Plans"])) if "Plans" in plan else seen


async def test_a_look_for_what_is_due_reads_that_alone(owned: Looks) -> None:
    await owned.run(
        "UPDATE zap.lease SET incarnation = NULL, expires_at = NULL WHERE session_id IN ('00001', '00002', '00003')"
    )
    await owned.run("UPDATE zap.session SET next_attempt_at = now() - interval '1 s' WHERE session_id = '00004'")
    counts = await owned.leases.fleet_counts(OTHER.incarnation)
    assert (counts.due, counts.silent, counts.waiting) == (3, 0, 1)
    assert most_rows(await owned.plan("fleet_counts", OTHER.incarnation, 1.0)) < SESSIONS / 100
    assert most_rows(await owned.plan("due_at", [1, 2, 3], False)) < SESSIONS / 100


async def test_a_lease_that_its_node_could_not_renew_is_seen_though_the_node_is_heard_of(owned: Looks) -> None:
    assert await owned.leases.fleet_counts(OTHER.incarnation) == FleetCounts()
    await owned.run("UPDATE zap.lease SET expires_at = now() - interval '1 s' WHERE session_id = '00001'")
    await owned.leases.renew(Announcement(NODE, SESSIONS), TTL)
    assert (await owned.leases.fleet_counts(OTHER.incarnation)).due == 1
    assert await owned.leases.claim(OTHER.incarnation, "there", TTL, 9, pairings=False, grace_s=0.0) == ["00001"]
    await owned.leases.renew(Announcement(NODE, SESSIONS), TTL)
    assert await owned.leases.fleet_counts(OTHER.incarnation) == FleetCounts()


@pytest.mark.parametrize("silence", ["heard_until = now()", "heard_until = NULL", "expires_at = now()"])
async def test_leases_of_a_node_that_does_not_vouch_for_them_are_looked_at(owned: Looks, silence: str) -> None:
    """It is silent, or it is of a release that says nothing, or another node has found it dead."""
    await owned.run("UPDATE zap.lease SET renewed_at = now() - interval '1 h', expires_at = now() + interval '2 s'")
    await owned.run(f"UPDATE zap.node SET {silence}")  # noqa: S608 - words of this test
    counts = await owned.leases.fleet_counts(OTHER.incarnation)
    assert counts.silent == SESSIONS * 9 / 10
    assert counts.next_due is not None
    assert counts.next_due <= 2, "when they expire"


async def test_a_lease_says_what_is_wanted_whatever_becomes_of_its_session(looks: Looks) -> None:
    async def wanted() -> list[str]:
        return sorted(await looks.leases.claim(uuid.uuid4(), "n", 0.0, SESSIONS, pairings=False, grace_s=0.0))

    await looks.run("DELETE FROM zap.session WHERE session_id > '00010'")
    everything = [f"{number:05}" for number in range(1, 11)]
    assert await wanted() == [one for one in everything if one != "00007"], "it has failed"
    await looks.run("UPDATE zap.session SET state = 'RECONNECTING'")
    assert await wanted() == everything
    await looks.run(
        "UPDATE zap.session SET desired_state = 'INACTIVE', state = 'DISCONNECTED' WHERE session_id < '00009'"
    )
    assert await wanted() == everything[8:]
