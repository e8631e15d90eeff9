"""Session processes that fall under traffic: no message is lost, and other sessions notice nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from simulator.control import SimulatorControl
from tests.e2e import faults
from tests.e2e.downtime import away, process_of, undisturbed
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.event_log import assert_gapless, judge_log
from tests.service_process import ServiceProcess
from tests.traffic import Traffic, gather_people

ROUNDS = int(os.environ.get("ZAP_TEST_ROUNDS", "1"))
"""More of them look at more moments."""
RATE = 6.0
"""Messages a second to each session; half as many to the group of all."""

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
async def test_a_fall_costs_no_message_and_its_own_session_a_moment(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql
) -> None:
    names = (*FALLS, *ONLOOKERS)
    phones = {name: await new_phone(simulator, name) for name in names}
    friend = await new_phone(simulator, "Friend")
    jids = {name: await pair(node, simulator, name, phones[name]) for name in names}
    people = await gather_people(simulator, friend, list(phones.values()))
    for name in names:
        # Then the friend's conversation with it is an established one.
        await node.send(name, f"+{friend}", "hello", f"hello-{name}")
    before = {name: await undisturbed(node, simulator, name, jids[name]) for name in ONLOOKERS}
    async with Traffic(simulator, people, phones, RATE) as traffic:
        for _ in range(ROUNDS):
            await traffic.reach(5)
            await asyncio.gather(
                *(away(node, simulator, name, jids[name], fall) for name, fall in FALLS.items()), kill_zygote(node)
            )
        await traffic.reach(5)
    judgement = await judge_log(sql, traffic.written)
    assert not judgement.problems, judgement.problems
    await assert_gapless(sql)
    for name in names:
        device = await simulator.device(jids[name])
        assert (device.overlaps, device.replaced) == (0, 0), name
    for name in ONLOOKERS:
        assert await undisturbed(node, simulator, name, jids[name]) == before[name]
    print(f"{ROUNDS} rounds: {judgement}")  # noqa: T201


async def kill_zygote(node: ServiceProcess) -> None:
    """Kill the zygote while they all need another process."""
    await asyncio.sleep(0.02)
    assert process_of(node, ONLOOKERS[0]).is_running()
    node.processes()[1].kill()
