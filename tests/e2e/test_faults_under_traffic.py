"""Session processes that fall under traffic: what is lost is what facts, 7 says, and of nobody else anything."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from tests.e2e import faults
from tests.e2e.people import new_phone, pair
from tests.e2e.recovery import away, process_of, undisturbed
from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess
from tests.simulator.control import SimulatorControl
from tests.traffic import Traffic, sequences, wait_logged

ROUNDS = int(os.environ.get("ZAP_TEST_ROUNDS", "1"))
"""More of them count how often a kill costs the message that is in hand."""
RATE = 20.0

FALLS: dict[str, Callable[[int], None]] = {
    "killed": lambda pid: os.kill(pid, signal.SIGKILL),
    "frozen": lambda pid: os.kill(pid, signal.SIGSTOP),
    "segfault": lambda pid: faults.provoke(pid, "segfault"),
    "panic": lambda pid: faults.provoke(pid, "panic"),
}
ONLOOKERS = ("one", "two")


@pytest.fixture
async def node(node_environment: dict[str, str]) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess({**node_environment, "ZAP_WORKER_PRELOAD": faults.PRELOAD}) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.mark.timeout(120 + 60 * ROUNDS)
async def test_a_fall_costs_its_own_session_one_message_at_most(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql, record_property: Callable[[str, object], None]
) -> None:
    names = (*FALLS, *ONLOOKERS)
    phones = {name: await new_phone(simulator, name) for name in names}
    friend = await new_phone(simulator, "Friend")
    jids = {name: await pair(node, simulator, name, phones[name]) for name in names}
    before = {name: await undisturbed(node, simulator, name, jids[name]) for name in ONLOOKERS}
    async with AsyncExitStack() as stack:
        traffic = {
            name: await stack.enter_async_context(Traffic(simulator, friend, phones[name], RATE / 2)) for name in names
        }
        for _ in range(ROUNDS):
            for each in traffic.values():
                await each.reach(5)
            await asyncio.gather(
                *(away(node, simulator, name, jids[name], fall) for name, fall in FALLS.items()), kill_zygote(node)
            )
        for each in traffic.values():
            await each.reach(5)
    lost = {}
    for name in names:
        written = traffic[name].written
        found = await wait_logged(sql, name, written)
        assert len(found) == len(set(found)), f"{name} has some twice"
        assert found == [text for text in written if text in set(found)], f"{name} has some out of order"
        numbers = await sequences(sql, name)
        assert numbers == list(range(1, len(numbers) + 1))
        lost[name] = len(written) - len(found)
        device = await simulator.device(jids[name])
        assert (device.overlaps, device.replaced) == (0, 0)
    record_property("lost", lost)
    for name in ONLOOKERS:
        assert lost[name] == 0
        assert await undisturbed(node, simulator, name, jids[name]) == before[name]
    assert all(lost[name] <= ROUNDS for name in FALLS), lost
    print(f"{ROUNDS} rounds, lost: {lost}, of {sum(len(each.written) for each in traffic.values())}")  # noqa: T201


async def kill_zygote(node: ServiceProcess) -> None:
    """Kill the zygote while they all need another process."""
    await asyncio.sleep(0.02)
    assert process_of(node, ONLOOKERS[0]).is_running()
    node.processes()[1].kill()
