"""Sessions are shared among the nodes that live: after an outage of Postgres, and when a node joins."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from simulator.control import SimulatorControl
from tests.caller import State
from tests.chaos.postgres import Postgres
from tests.e2e.cluster import Cluster, cluster
from tests.e2e.conftest import LEASE_TTL
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from tests.traffic import Written

READY_BOUND_S = 5.0
"""The contract of /readyz, both ways."""
SHARED_BOUND_S = 60.0
"""The contract: shared among the living nodes within a minute."""
AWAY_BOUND_S = 1.0
BUSY = 4
"""How much slower a machine may be that runs other tests as well."""


@pytest.fixture
def sharing(node_environment: dict[str, str]) -> dict[str, str]:
    """Settings of a node that shares its sessions out, as in production."""
    return {**node_environment, "ZAP_REBALANCE": "1"}


@pytest.fixture
async def postgres(server_folder: Path) -> AsyncIterator[Postgres]:
    """A server of the test's own, which it may stop."""
    async with Postgres(server_folder) as server:
        yield server


async def shares(there: Cluster, asked: ServiceProcess) -> dict[str, int]:
    """How many sessions each node owns, as this one says."""
    return Counter([(await asked.status(name)).owner.node for name in there.sessions])


async def until_shared(there: Cluster, asked: ServiceProcess, wanted: Mapping[str, int], since: float) -> float:
    """Until each node owns so many, all connected; the seconds since then (time.monotonic())."""
    while await shares(there, asked) != wanted:
        assert time.monotonic() - since < SHARED_BOUND_S, await shares(there, asked)
        await asyncio.sleep(0.1)
    seconds = time.monotonic() - since
    await there.all_connected(asked, timeout=10)
    return seconds


async def metric(node: ServiceProcess, name: str) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{node.http_port}/metrics") as page:
        lines = (await page.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


class Readiness:
    """What /readyz of one node says, four times a second."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        """Status by the moment (time.monotonic()) at which it was asked for."""

    @asynccontextmanager
    async def watching(self, node: ServiceProcess) -> AsyncIterator["Readiness"]:
        watching = asyncio.create_task(self._watch(node))
        yield self
        watching.cancel()
        await asyncio.wait((watching,))
        assert watching.cancelled(), watching.exception()

    async def _watch(self, node: ServiceProcess) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                asked_at = time.monotonic()
                async with http.get(f"http://127.0.0.1:{node.http_port}/readyz") as page:
                    self.seen.append((asked_at, page.status))
                await asyncio.sleep(0.25)

    def first(self, status: int, since: float) -> float:
        """After how many seconds it was said first."""
        return next(at - since for at, said in self.seen if at >= since and said == status)

    def judge(self, lost_at: float, ends_at: float, back_at: float) -> None:
        """It must have kept both bounds, and not have changed its mind."""
        assert {said for at, said in self.seen if at < lost_at} == {200}
        assert self.first(503, lost_at) <= READY_BOUND_S
        assert {said for at, said in self.seen if lost_at + READY_BOUND_S <= at < ends_at} == {503}
        assert {said for at, said in self.seen if at >= back_at + READY_BOUND_S} == {200}


@asynccontextmanager
async def writing(there: Cluster, sessions: Sequence[str], rate: float) -> AsyncIterator[list[Written]]:
    """Have people write to these sessions, from before the block until after it; what they have written."""
    async with there.traffic(rate, sessions=sessions) as traffic:
        await traffic.reach(2)
        yield traffic.written
        await traffic.reach(2)


async def stop(server: Postgres) -> None:
    await server.stop(signal.SIGINT)


async def hang(server: Postgres) -> None:
    server.freeze()


async def go_on(server: Postgres) -> None:
    server.thaw()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("fault", "end"), [(stop, Postgres.start), (hang, go_on)], ids=["stopped", "hung"])
async def test_after_an_outage_of_postgres_each_node_has_its_share_and_said_that_it_was_not_ready(
    sharing: dict[str, str],
    simulator: SimulatorControl,
    postgres: Postgres,
    fault: Callable[[Postgres], Awaitable[None]],
    end: Callable[[Postgres], Awaitable[None]],
) -> None:
    async with cluster({**sharing, "DATABASE_URL": postgres.url}, simulator, 8, 2) as there:
        asked = there.nodes[0]
        epochs = await there.epochs(asked)
        began = time.time()
        async with Readiness().watching(asked) as ready, writing(there, there.sessions, 2.0) as written:
            lost_at = time.monotonic()
            await fault(postgres)
            # Longer than both: a lease, and what /readyz may take.
            await asyncio.sleep(2 * LEASE_TTL + 1)
            ends_at = time.monotonic()
            await end(postgres)
            back_at = time.monotonic()
            await there.came_back(asked, there.sessions, epochs, 3.0 * BUSY)
            came_back = time.monotonic() - back_at
            shared = await until_shared(there, asked, {"node-0": 4, "node-1": 4}, back_at)
            await asyncio.sleep(max(0.0, back_at + READY_BOUND_S + 1 - time.monotonic()))
        moves = len(await there.gaps(began)) - len(there.sessions)
        figures = f"503 after {ready.first(503, lost_at):.2f} s, 200 after {ready.first(200, ends_at):.2f}"
        print(f"{figures}; connected after {came_back:.2f}, shared after {shared:.2f} by {moves} moves")  # noqa: T201
        ready.judge(lost_at, ends_at, back_at)
        await there.assert_one_owner_at_a_time()
        sql = await asyncpg.connect(postgres.url)
        await there.assert_log_is_whole(sql, written)
        await sql.close()


async def be_idle_since(sql: Sql, minutes: Mapping[str, int]) -> None:
    for name, idle in minutes.items():
        await sql.execute(
            "UPDATE zap.session SET last_inbound_at = now() - make_interval(mins => $2),"
            " paired_at = now() - interval '1 month' WHERE session_id = $1",
            name,
            idle,
        )


@pytest.mark.timeout(180)
async def test_nodes_that_join_are_given_their_share_the_idlest_sessions_first(
    sharing: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with cluster(sharing, simulator, 7, 3, on_first=True) as there:
        joined_at, began = time.monotonic(), time.time()
        busy, asked = there.sessions[:3], there.nodes[2]
        await be_idle_since(sql, {name: number for number, name in enumerate(there.sessions)})
        epochs = await there.epochs(asked)
        async with writing(there, busy, 2.0) as written:
            seconds = await until_shared(there, asked, {"node-0": 3, "node-1": 2, "node-2": 2}, joined_at)
        assert await there.owned_by(there.nodes[0]) == busy
        gaps = await there.gaps(began)
        print(f"shared after {seconds:.1f} s, away for", [round(gap, 2) for gap in sorted(gaps)])  # noqa: T201
        assert len(gaps) == 4, "no move too many"
        assert max(gaps) < AWAY_BOUND_S * BUSY
        after = await there.epochs(asked)
        moved = {name for name in there.sessions if after[name] != epochs[name]}
        assert moved == set(there.sessions) - set(busy)
        assert await metric(there.nodes[0], "zap_sessions_rebalanced_total") == 4
        assert "handed over the longest idle" in there.nodes[0].log()
        await there.assert_one_owner_at_a_time()
        await there.assert_log_is_whole(sql, written)


@pytest.mark.timeout(180)
async def test_sessions_that_everybody_writes_to_are_shared_out_as_well_and_lose_nothing(
    sharing: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with cluster(sharing, simulator, 6, 2, on_first=True) as there:
        joined_at, began = time.monotonic(), time.time()
        async with writing(there, there.sessions, 10.0) as written:
            await until_shared(there, there.nodes[1], {"node-0": 3, "node-1": 3}, joined_at)
        gaps = await there.gaps(began)
        count = len(written)
        print("away for", [round(gap, 2) for gap in sorted(gaps)], "while", count, "were written")  # noqa: T201
        assert len(gaps) == 3
        assert max(gaps) < AWAY_BOUND_S * BUSY
        await there.assert_one_owner_at_a_time()
        await there.assert_log_is_whole(sql, written)


@pytest.mark.timeout(180)
async def test_a_node_that_stops_while_it_shares_its_sessions_out_hands_over_all_of_them_once(
    sharing: dict[str, str], simulator: SimulatorControl
) -> None:
    async with cluster(sharing, simulator, 6, 2, on_first=True) as there:
        stopping, stays = there.nodes
        began, epochs = time.time(), await there.epochs(stays)
        await eventually(lambda: "Handed a session over." in stopping.log(), timeout=SHARED_BOUND_S)
        assert await stopping.stop() == 0
        assert await shares(there, stays) == {"node-1": 6}
        await there.all_connected(stays, timeout=10)
        gaps = await there.gaps(began)
        assert len(gaps) == 6
        assert max(gaps) < AWAY_BOUND_S * BUSY
        assert {epoch - epochs[name] for name, epoch in (await there.epochs(stays)).items()} == {1}
        await there.assert_one_owner_at_a_time()


@pytest.mark.timeout(180)
async def test_a_node_that_is_frozen_when_it_would_be_given_a_session_costs_none_anything(
    sharing: dict[str, str], simulator: SimulatorControl
) -> None:
    # Others believe in it for longer than they wait until all is calm.
    environment = {**sharing, "ZAP_LEASE_TTL": "60"}
    async with cluster(environment, simulator, 4, 2, on_first=True) as there:
        giver, frozen = there.nodes
        epochs = await there.epochs(giver)
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: "A node did not take a session." in giver.log(), timeout=30)
            assert await there.epochs(giver) == epochs
            states = [(await giver.status(name)).state for name in there.sessions]
            assert states == [State.STATE_CONNECTED] * 4
            devices = [await simulator.device(jid) for jid in there.jids.values()]
            assert [len(device.intervals) for device in devices] == [1] * 4, "none was away"
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
