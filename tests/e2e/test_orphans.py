"""What session processes had seen when their node died is in the event log: once, in its order, and in time."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import psutil

from tests.caller import State
from tests.e2e.conftest import LEASE_TTL
from tests.e2e.people import new_phone, pair
from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess, is_alive
from tests.simulator.control import SimulatorControl
from tests.tcp_proxy import Line, TcpProxy
from tests.traffic import Traffic, logged, sequences, wait_logged

SESSIONS = ("anna", "berta", "clara")
COME_BACK = LEASE_TTL + 3.0
"""Seconds after a node's sudden death within which its sessions are connected elsewhere (the design's bound)."""


@dataclass(frozen=True)
class Scene:
    """Paired sessions on one node, and another node that waits to take over."""

    node: ServiceProcess
    next_node: ServiceProcess
    simulator: SimulatorControl
    jids: dict[str, str]
    phones: dict[str, str]

    def traffic(self, session_id: str) -> Traffic:
        return Traffic(self.simulator, self.phones["friend"], self.phones[session_id])


@asynccontextmanager
async def scene(
    environment: dict[str, str], simulator: SimulatorControl, next_environment: dict[str, str] | None = None
) -> AsyncIterator[Scene]:
    async with ServiceProcess(environment) as node:
        phones = {name: await new_phone(simulator, name) for name in (*SESSIONS, "friend")}
        jids = {name: await pair(node, simulator, name, phones[name]) for name in SESSIONS}
        # Not before they are paired: it would take some of them for itself.
        async with ServiceProcess(next_environment or environment) as next_node:
            yield Scene(node, next_node, simulator, jids, phones)


@asynccontextmanager
async def everybody_writes(scene: Scene) -> AsyncIterator[dict[str, Traffic]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(scene.traffic(name)) for name in SESSIONS}


async def assert_dead(processes: Sequence[psutil.Process], since: float, within: float) -> None:
    while alive := [process for process in processes if is_alive(process)]:
        assert time.monotonic() < since + within, f"{alive} live on {within} s after their node"
        await asyncio.sleep(0.02)


async def assert_taken_over(scene: Scene, since: float) -> None:
    for name in SESSIONS:
        remaining = since + COME_BACK - time.monotonic()
        await scene.next_node.wait_state(name, State.STATE_CONNECTED, timeout=remaining, after_epoch=1)


async def assert_nothing_is_lost(scene: Scene, sql: Sql, traffic: dict[str, Traffic]) -> None:
    for name in SESSIONS:
        written = traffic[name].written
        assert await wait_logged(sql, name, written) == written
        numbers = await sequences(sql, name)
        assert numbers == list(range(1, len(numbers) + 1))
        device = await scene.simulator.device(scene.jids[name])
        assert (device.logins, device.overlaps, device.replaced) == (2, 0, 0)


async def test_a_node_that_is_killed_under_traffic_costs_no_message(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with scene(node_environment, simulator) as there:
        async with everybody_writes(there) as traffic:
            for each in traffic.values():
                await each.reach(10)
            orphans = there.node.session_processes()
            assert len(orphans) == len(SESSIONS)
            died = time.monotonic()
            await there.node.kill_node()
            await assert_dead(orphans, died, LEASE_TTL)
            await assert_taken_over(there, died)
            for each in traffic.values():
                await each.reach(5)
        await assert_nothing_is_lost(there, sql, traffic)


async def test_a_node_that_is_killed_with_its_zygote_while_the_database_is_silent_costs_no_message(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, database_url: str
) -> None:
    async with TcpProxy(database_url) as proxy:
        # Time for it within a permit: two thirds of a ttl are left of one at the least.
        ttl = 6.0
        environment = {**node_environment, "DATABASE_URL": proxy.url, "ZAP_LEASE_TTL": f"{ttl:g}"}
        async with scene(environment, simulator, node_environment) as there:
            async with everybody_writes(there) as traffic:
                for each in traffic.values():
                    await each.reach(10)
                orphans = there.node.session_processes()
                await proxy.set(Line.SILENT)
                await traffic["anna"].reach(3)
                died = time.monotonic()
                there.node.processes()[1].kill()
                await there.node.kill_node()
                await asyncio.sleep(1.0)
                await proxy.set(Line.OPEN)
                await assert_dead(orphans, died, ttl)
                # A renewal of the dead node's can still have been under way, and count from this moment on.
                await assert_taken_over(there, died + 1.0 + ttl - LEASE_TTL)
            await assert_nothing_is_lost(there, sql, traffic)


async def test_what_only_the_processes_know_is_written_once_the_database_is_back(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, database_url: str
) -> None:
    """The node commits nothing any more; then it dies, and the database refuses everybody for a second."""
    async with TcpProxy(database_url) as proxy:
        environment = {**node_environment, "DATABASE_URL": proxy.url, "ZAP_LEASE_TTL": "30"}
        async with ServiceProcess(environment) as node:
            phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
            jid = await pair(node, simulator, "anna", phone)
            orphans = node.session_processes()
            os.kill(node.pid, signal.SIGSTOP)
            async with Traffic(simulator, friend, phone) as traffic:
                await traffic.reach(20)
            await simulator.wait_for_device(jid, lambda device: not device.queue)
            await proxy.set(Line.CUT)
            await node.kill_node()
            await asyncio.sleep(1.0)
            assert await logged(sql, "anna") == []
            reopened = time.monotonic()
            await proxy.set(Line.OPEN)
            # As soon as it is written, and not at the end of half a minute's lease.
            await assert_dead(orphans, reopened, 10.0)
            assert await logged(sql, "anna") == traffic.written
            numbers = await sequences(sql, "anna")
            assert numbers == list(range(1, len(numbers) + 1))


async def test_a_node_that_hangs_until_it_is_killed_costs_no_message(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """Its processes hear neither from it nor of its end; they leave before their permits end them."""
    ttl = 6.0
    async with scene({**node_environment, "ZAP_LEASE_TTL": f"{ttl:g}"}, simulator) as there:
        async with everybody_writes(there) as traffic:
            for each in traffic.values():
                await each.reach(10)
            orphans = there.node.session_processes()
            frozen = time.monotonic()
            os.kill(there.node.pid, signal.SIGSTOP)
            try:
                await assert_dead(orphans, frozen, ttl)
                await assert_taken_over(there, frozen + ttl - LEASE_TTL)
            finally:
                await there.node.kill_node()
        await assert_nothing_is_lost(there, sql, traffic)


async def test_a_machine_that_stands_still_past_its_leases_costs_a_message_for_each_session_at_most(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """Its session processes execute nothing when it goes on: a kill for them. Its node reads what they had said."""
    async with scene(node_environment, simulator) as there:
        async with everybody_writes(there) as traffic:
            for each in traffic.values():
                await each.reach(10)
            orphans = there.node.session_processes()
            processes = there.node.processes()
            frozen = time.monotonic()
            for process in processes:
                process.suspend()
            await assert_taken_over(there, frozen)
            for each in traffic.values():
                await each.reach(5)
            for process in processes:
                # Its node goes on already, and has killed what it lost.
                with suppress(psutil.NoSuchProcess):
                    process.resume()
            await assert_dead(orphans, time.monotonic(), 2.0)
            for each in traffic.values():
                await each.reach(5)
        for name in SESSIONS:
            written = traffic[name].written
            found = await wait_logged(sql, name, written)
            assert len(found) == len(set(found))
            assert len(set(written) - set(found)) <= 1
            numbers = await sequences(sql, name)
            assert numbers == list(range(1, len(numbers) + 1))
