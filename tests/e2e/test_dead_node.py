"""A node that is dead for certain: a node of the same machine takes over at once, and not a moment before."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psutil
import pytest

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.downtime import process_of
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess, is_alive

SESSIONS = ("anna", "berta", "clara")
LONG_TTL_S = 120.0
"""No test waits for the end of such a lease: what is back was taken over."""
SHORT_TTL_S = 8.0
"""For tests that do; longer than a start takes on a busy machine."""
BACK_S = 30.0
"""A bound that tells a hang."""


@dataclass
class Scene:
    """A node, its sessions, and a node that takes over: the same one, started again, or another one."""

    node: ServiceProcess
    simulator: SimulatorControl
    sql: Sql
    jids: dict[str, str]

    async def start_again(self) -> None:
        """Start the node that was killed."""
        await self.node.start()
        await self.node.wait_ready()

    async def all_back(self, asked: ServiceProcess, timeout: float = BACK_S) -> None:
        """Every session is connected under a second epoch."""
        for name in self.jids:
            await asked.wait_state(name, State.STATE_CONNECTED, timeout=timeout, after_epoch=1)

    async def last_logins(self) -> dict[str, float]:
        """When each session logged in last, in Unix seconds."""
        return {name: (await self.simulator.device(jid)).intervals[-1].connected_at for name, jid in self.jids.items()}

    async def leases_end_at(self) -> float:
        """When the first lease ends, in Unix seconds by the database's clock, which is this machine's."""
        return float(await self.sql.fetchval("SELECT extract(epoch FROM min(expires_at))::float8 FROM zap.lease"))

    async def assert_logged_in_once_more(self, names: Sequence[str] = SESSIONS) -> None:
        """No session was connected twice at once, or more often than needed."""
        for name in names:
            device = await self.simulator.device(self.jids[name])
            assert (device.logins, device.overlaps, device.replaced) == (2, 0, 0), name
            before, after = device.intervals
            assert before.disconnected_at is not None
            assert before.disconnected_at <= after.connected_at


@asynccontextmanager
async def scene(
    environment: dict[str, str], simulator: SimulatorControl, sql: Sql, ttl: float = LONG_TTL_S
) -> AsyncIterator[Scene]:
    async with ServiceProcess({**environment, "ZAP_LEASE_TTL": f"{ttl:g}"}) as node:
        jids = {name: await pair(node, simulator, name, await new_phone(simulator, name)) for name in SESSIONS}
        yield Scene(node, simulator, sql, jids)


@asynccontextmanager
async def frozen(process: psutil.Process) -> AsyncIterator[psutil.Process]:
    """A process that executes nothing, and is killed at the end, whatever happens."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield process
    finally:
        if is_alive(process):
            process.kill()


async def until_dead(processes: Sequence[psutil.Process]) -> None:
    await eventually(lambda: not any(map(is_alive, processes)), timeout=BACK_S)


@pytest.mark.parametrize("everything", [False, True], ids=["the node", "all of its processes"])
async def test_the_only_node_that_is_killed_and_started_again_does_not_wait_for_its_own_lease(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, *, everything: bool
) -> None:
    async with scene(node_environment, simulator, sql) as there:
        await (there.node.kill_all() if everything else there.node.kill_node())
        await there.start_again()
        await there.all_back(there.node)
        await there.assert_logged_in_once_more()


async def test_another_node_of_the_same_machine_takes_over_at_once(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with scene(node_environment, simulator, sql) as there, AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(ServiceProcess({**node_environment, "ZAP_LEASE_TTL": f"{LONG_TTL_S:g}"}))
            for _ in range(2)
        ]
        await there.node.kill_node()
        await there.all_back(others[0])
        await there.assert_logged_in_once_more()
        owned = await sql.fetch("SELECT count(*) FROM zap.lease GROUP BY incarnation")
        assert sorted(row["count"] for row in owned) == [1, 2], "shared out, and none to the dead one"


async def test_nobody_takes_over_while_one_process_of_the_dead_node_lives(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with scene(node_environment, simulator, sql) as there:
        *others, last = (process_of(there.node, name) for name in SESSIONS)
        async with frozen(last):
            await there.node.kill_node()
            await there.start_again()
            await until_dead(others)
            # That nothing happens cannot be awaited; it would happen within a tenth of this.
            await asyncio.sleep(1.0)
            killed_at = time.time()
            last.kill()
            await there.all_back(there.node)
        assert min((await there.last_logins()).values()) >= killed_at
        await there.assert_logged_in_once_more()


async def test_a_dead_node_with_a_frozen_process_keeps_its_leases_until_the_ttl(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with scene(node_environment, simulator, sql, SHORT_TTL_S) as there:
        *others, last = SESSIONS
        async with frozen(process_of(there.node, last)) as process:
            await there.node.kill_node()
            end = await there.leases_end_at()
            await there.start_again()
            await there.all_back(there.node, SHORT_TTL_S + BACK_S)
            assert is_alive(process)
        assert min((await there.last_logins()).values()) >= end
        await there.assert_logged_in_once_more(others)


@pytest.mark.parametrize("scope", ["'another-boot/4:1'", "NULL"], ids=["of another machine", "of an older release"])
async def test_a_dead_node_that_is_not_of_this_machine_keeps_its_leases_until_the_ttl(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, scope: str
) -> None:
    await sql.execute(
        "CREATE FUNCTION elsewhere() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN NEW.liveness_scope := {scope}; RETURN NEW; END $$"
    )
    await sql.execute("CREATE TRIGGER elsewhere BEFORE INSERT ON zap.node FOR EACH ROW EXECUTE FUNCTION elsewhere()")
    async with scene(node_environment, simulator, sql, SHORT_TTL_S) as there:
        await there.node.kill_all()
        end = await there.leases_end_at()
        await there.start_again()
        await there.all_back(there.node, SHORT_TTL_S + BACK_S)
        assert min((await there.last_logins()).values()) >= end
        await there.assert_logged_in_once_more()
