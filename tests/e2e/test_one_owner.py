"""Names and leases that are confused: there is one owner all the same, and nobody else is disturbed."""

import asyncio
import time
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e import faults
from tests.e2e.cluster import SECRET
from tests.e2e.conftest import LEASE_TTL
from tests.e2e.downtime import process_of
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess, free_port, is_alive
from zap.v1 import message_pb2

BUSY = 5.0
"""Seconds that a machine may need besides the bound, if it runs other tests as well."""
SENT = {message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_DELIVERED}


async def owned_at(sql: Sql, address: str) -> dict[str, int]:
    """The sessions of the node that is called there, with their epochs. Two nodes of one name have two addresses."""
    rows = await sql.fetch(
        "SELECT session_id, epoch FROM zap.lease JOIN zap.node USING (incarnation)"
        " WHERE address = $1 AND lease.expires_at > clock_timestamp()",
        address,
    )
    return {row["session_id"]: row["epoch"] for row in rows}


@pytest.mark.timeout(180)
async def test_two_nodes_of_one_name_are_two_nodes(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    settings = [
        {**node_environment, **SECRET, "ZAP_NODE_ID": "twin", "ZAP_NODE_LISTEN": address} for address in addresses
    ]
    friend = await new_phone(simulator, "Friend")
    jids = {}
    # It has room for two; those that come after them are the other one's.
    async with ServiceProcess({**settings[0], "ZAP_MAX_SESSIONS": "2"}) as first, AsyncExitStack() as stack:
        for name in ("s0", "s1"):
            jids[name] = await pair(first, simulator, name, await new_phone(simulator, name))
        second = await stack.enter_async_context(ServiceProcess(settings[1]))
        for name in ("s2", "s3"):
            jids[name] = await pair(first, simulator, name, await new_phone(simulator, name))
        theirs, others = [await owned_at(sql, address) for address in addresses]
        assert (set(theirs), set(others)) == ({"s0", "s1"}, {"s2", "s3"})
        for name in jids:
            for number, node in enumerate((first, second)):
                sent = await node.send(name, f"+{friend}", f"to {name} by {number}", f"{name}-{number}")
                assert sent.state in SENT
                assert (await node.status(name)).owner.node == "twin"
        processes = {name: process_of(second, name) for name in others}
        assert await first.stop() == 0
        for name, epoch in theirs.items():
            await second.wait_state(name, State.STATE_CONNECTED, timeout=LEASE_TTL + BUSY, after_epoch=epoch)
        after = await owned_at(sql, addresses[1])
        assert {name: after[name] for name in others} == others
        assert all(is_alive(process) for process in processes.values())
        for name, jid in jids.items():
            device = await simulator.device(jid)
            assert (device.logins, device.overlaps, device.replaced) == (2 if name in theirs else 1, 0, 0)


@pytest.mark.timeout(180)
async def test_a_node_that_comes_back_under_its_name_waits_for_the_processes_that_it_left(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    # A start takes 5 s on a slow machine that does other things as well: the leases are to outlast it.
    ttl = 12.0
    environment = {**node_environment, "ZAP_LEASE_TTL": f"{ttl:g}", "ZAP_WORKER_PRELOAD": faults.PRELOAD}
    async with ServiceProcess({**environment, "ZAP_NODE_ID": "old-name"}) as node:
        names = ("anna", "berta", "clara")
        jids = {name: await pair(node, simulator, name, await new_phone(simulator, name)) for name in names}
        orphans = [process_of(node, name) for name in names]
        for orphan in orphans:
            # It does not hear that its node is gone, and stays connected: only the end of its permit ends it.
            faults.provoke(orphan.pid, "hold-interpreter")
        await asyncio.sleep(0.2)
        died = time.monotonic()
        await node.kill_node()
        await node.start()
        await node.wait_ready()
        assert all(is_alive(orphan) for orphan in orphans), "the case that is meant"
        for name in names:
            left = died + ttl + 3.0 + BUSY - time.monotonic()
            session = await node.wait_state(name, State.STATE_CONNECTED, timeout=left, after_epoch=1)
            assert session.owner.node == "old-name"
        assert not any(is_alive(orphan) for orphan in orphans)
        for jid in jids.values():
            device = await simulator.device(jid)
            before, after = device.intervals
            assert before.disconnected_at is not None
            assert before.disconnected_at <= after.connected_at
            assert (device.logins, device.overlaps, device.replaced) == (2, 0, 0)


@pytest.mark.timeout(120)
async def test_a_session_that_is_moved_away_takes_no_other_with_it(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with ServiceProcess(node_environment) as node:
        names = ("anna", "berta", "clara")
        jids = {name: await pair(node, simulator, name, await new_phone(simulator, name)) for name in names}
        processes = {name: process_of(node, name) for name in names}
        elsewhere, moved_at = 4.0, time.time()
        # As a hand-over writes it, but to a node that never begins.
        await sql.execute(
            "UPDATE zap.lease SET incarnation = $2, node = 'elsewhere', is_begun = false,"
            " renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $3)"
            " WHERE session_id = $1",
            *("anna", uuid4(), elsewhere),
        )
        await eventually(lambda: not is_alive(processes["anna"]), timeout=LEASE_TTL / 5 + BUSY)
        await node.wait_state("anna", State.STATE_CONNECTED, timeout=elsewhere + 3.0 + BUSY, after_epoch=1)
        device = await simulator.device(jids["anna"])
        assert device.intervals[-1].connected_at >= moved_at + elsewhere, "the lease was somebody else's until then"
        assert (device.logins, device.overlaps, device.replaced) == (2, 0, 0)
        for name in ("berta", "clara"):
            assert is_alive(processes[name])
            assert (await node.status(name)).owner.epoch == 1
            assert (await simulator.device(jids[name])).logins == 1
