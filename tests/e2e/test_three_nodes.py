"""Three nodes share sessions: what is lost comes back elsewhere, within its bound, and never twice at once."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

import pytest

from tests.e2e.conftest import LEASE_TTL
from tests.e2e.sql import Sql
from tests.e2e.three_nodes import Cluster, cluster
from tests.service_process import ServiceProcess, State
from tests.simulator.control import SimulatorControl

COME_BACK = LEASE_TTL + 3.0
"""Seconds, the design's bound; plus those that a machine needs that runs other tests as well."""
BUSY = 5.0


async def came_back(there: Cluster, asked: ServiceProcess, sessions: list[str], epochs: dict[str, int]) -> None:
    await there.came_back(asked, sessions, epochs, COME_BACK + BUSY)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("everything", [True, False], ids=["machine lost", "node killed"])
async def test_a_lost_node_s_sessions_come_back_elsewhere_and_calls_go_on_being_answered(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, everything: bool
) -> None:
    async with cluster(node_environment, simulator, 9) as there:
        victim, lost_sessions = await there.an_owner()
        asked = next(node for node in there.nodes if node is not victim)
        epochs = await there.epochs(asked)
        async with AsyncExitStack() as stack:
            traffic = {name: await stack.enter_async_context(there.traffic(name, 5.0)) for name in there.sessions}
            for each in traffic.values():
                await each.reach(3)
            if everything:
                await victim.kill_all()
            else:
                await victim.kill_node()
            await came_back(there, asked, lost_sessions, epochs)
            for each in traffic.values():
                await each.reach(3)
        await there.assert_one_owner_at_a_time()
        missing = await there.lost(sql, {name: each.written for name, each in traffic.items()})
        for name, count in missing.items():
            # A killed session process can cost the one message that it has in hand (facts, 7); a killed node none.
            assert count <= (1 if everything and name in lost_sessions else 0), missing
        after = await there.epochs(asked)
        assert {name for name in there.sessions if after[name] != epochs[name]} == set(lost_sessions)


@pytest.mark.timeout(180)
async def test_a_frozen_node_is_followed_and_takes_part_again_when_it_wakes_up(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with cluster(node_environment, simulator, 9) as there:
        victim, lost_sessions = await there.an_owner()
        asked = next(node for node in there.nodes if node is not victim)
        epochs = await there.epochs(asked)
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            await came_back(there, asked, lost_sessions, epochs)
            await asyncio.sleep(max(0.0, began + 3 * LEASE_TTL - time.monotonic()))
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        await there.assert_one_owner_at_a_time()
        # It hears that it owns nothing any more, and takes sessions again.
        await victim.wait_state(lost_sessions[0], State.STATE_CONNECTED)
        settled = await there.epochs(asked)
        for other in there.nodes:
            if other is not victim:
                await other.stop()
        for name in there.sessions:
            session = await victim.wait_state(name, State.STATE_CONNECTED, timeout=20, after_epoch=settled[name] - 1)
            assert session.owner.node == f"node-{there.nodes.index(victim)}"
        await there.assert_one_owner_at_a_time()


@pytest.mark.timeout(180)
async def test_what_three_nodes_claim_at_once_is_claimed_once(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    environment = {**node_environment, "ZAP_CONNECTS_PER_SECOND": "50"}
    async with cluster(environment, simulator, 15) as there:
        logins = {name: (await simulator.device(jid)).logins for name, jid in there.jids.items()}
        await asyncio.gather(*(node.kill_all() for node in there.nodes))
        await asyncio.gather(*(node.start() for node in there.nodes))
        await asyncio.gather(*(node.wait_ready() for node in there.nodes))
        await asyncio.gather(
            *(there.nodes[0].wait_state(name, State.STATE_CONNECTED, timeout=30, after_epoch=1) for name in there.jids)
        )
        await asyncio.sleep(1.0)
        for name, jid in there.jids.items():
            assert (await simulator.device(jid)).logins == logins[name] + 1
        await there.assert_one_owner_at_a_time()
