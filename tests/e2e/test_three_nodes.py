"""Three nodes share sessions: what is lost comes back elsewhere, within its bound, and never twice at once."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

import aiohttp
import pytest

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.cluster import SECRET, Cluster, cluster
from tests.e2e.conftest import LEASE_TTL
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from zap.v1 import message_pb2

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
        async with there.traffic(5.0) as traffic:
            await traffic.reach(3)
            if everything:
                await victim.kill_all()
            else:
                await victim.kill_node()
            await came_back(there, asked, lost_sessions, epochs)
            await traffic.reach(3)
        await there.assert_one_owner_at_a_time()
        await there.assert_log_is_whole(sql, traffic.written)
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


async def stale_writes(node: ServiceProcess) -> float:
    """How many the node has counted of those that another owner refuses."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{node.http_port}/metrics") as page:
        lines = (await page.text()).splitlines()
    counted = [line for line in lines if line.startswith("zap_stale_writes_total{") and "LEASE_LOST" in line]
    return sum(float(line.rpartition(" ")[2]) for line in counted)


async def written_of(sql: Sql, session_id: str) -> list[str]:
    """What an owner writes of a session and its lease, but for what each renewal and look changes."""
    row = await sql.fetchrow(
        "SELECT s::text AS session, (l.epoch, l.incarnation, l.node, l.is_revoked, l.is_begun)::text AS lease,"
        " (SELECT max(sequence) FROM zap.event e WHERE e.session_id = $1)::text AS told,"
        " (SELECT string_agg(m::text, ' ' ORDER BY request_id) FROM zap.message m WHERE m.session_id = $1) AS sent"
        " FROM zap.session s JOIN zap.lease l USING (session_id) WHERE session_id = $1",
        session_id,
    )
    assert row is not None
    return [str(value) for value in row.values()]


@pytest.mark.timeout(180)
async def test_a_node_that_was_frozen_while_it_sent_finds_what_it_writes_refused_and_counts_it(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    settings = {**node_environment, **SECRET}
    async with ServiceProcess({**settings, "ZAP_NODE_ID": "frozen"}) as frozen, AsyncExitStack() as stack:
        # Only then the other one: until it is needed it owns nothing.
        friend = await new_phone(simulator, "Friend")
        jid = await pair(frozen, simulator, "s0", await new_phone(simulator, "Owner"))
        other = await stack.enter_async_context(ServiceProcess({**settings, "ZAP_NODE_ID": "other"}))
        epoch = (await other.status("s0")).owner.epoch
        await simulator.hold_queries("usync")
        sending = asyncio.create_task(frozen.send("s0", friend, "Hello", "request-1"))
        await simulator.wait_for_held_queries()
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            await simulator.release_queries()
            # WhatsApp has it, and the session's process says so to a node that does not hear it.
            await simulator.wait_for_inbox(friend, "Hello")
            await other.wait_state("s0", State.STATE_CONNECTED, timeout=COME_BACK + BUSY, after_epoch=epoch)
            await asyncio.sleep(max(0.0, began + 3 * LEASE_TTL - time.monotonic()))
            written = await written_of(sql, "s0")
            assert await stale_writes(other) == 0
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert (await sending).state == message_pb2.Message.STATE_OUTCOME_UNKNOWN, "as the new owner wrote it down"
        # The caller may read the word of the new owner before the old one has tried to write its own.
        await eventually(lambda: stale_writes(frozen), "a stale write")
        assert await written_of(sql, "s0") == written
        assert (await other.status("s0")).owner.node == "other"
        device = await simulator.device(jid)
        assert (device.overlaps, device.replaced) == (0, 0)


@pytest.mark.timeout(180)
async def test_a_second_node_that_is_frozen_keeps_nobody_from_the_sessions_of_the_first(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    """It has just said that it takes some, and its word counts for longer than they are to be away."""
    ttl = 10.0
    async with cluster({**node_environment, "ZAP_LEASE_TTL": f"{ttl:g}"}, simulator, 9) as there:
        victim, frozen, last = there.nodes
        lost_sessions = await there.owned_by(victim)
        assert len(lost_sessions) >= 2, "one at the least is the frozen one's to claim"
        epochs = await there.epochs(last)
        began = time.monotonic()
        await victim.kill_node()
        # Its leases end 8 to 10 s after its death. What the other one says of itself counts for longer than 15 s: it
        # said so 5.5 s after that death, or later.
        await asyncio.sleep(began + ttl * 0.75 - time.monotonic())
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            await asyncio.gather(
                *(
                    last.wait_state(name, State.STATE_CONNECTED, timeout=2 * ttl, after_epoch=epochs[name])
                    for name in lost_sessions
                )
            )
            took = time.monotonic() - began
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert took < ttl + 5.0, "its own row lasts for longer"
        await there.all_connected(last, timeout=COME_BACK + ttl)
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
