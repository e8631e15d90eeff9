"""What can happen to a session process, on the real client: its session is back within its bound, no other notices.

The bounds are those of a machine that does nothing else; here a late answer is told from none. What it takes is
measured by `python -m benchmarks.faults`.
"""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest

from dev import EmbeddedPostgres, EmbeddedValkey
from simulator.control import SimulatorControl
from simulator.process import SimulatorProcess
from tests.caller import State
from tests.e2e import faults
from tests.e2e.downtime import Away, away, forget_failures, log_of, process_of, states_of, undisturbed
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess

DIED, STUCK = 2.0, 6.0
"""Seconds until a session is back."""
PATIENCE = 4
"""How much slower a machine may be that runs other tests as well."""
NAMES = ("anna", "ben", "cleo", "dora", "emil")

Fault = Callable[[int], Awaitable[None] | None]


@dataclass(frozen=True)
class House:
    """A node with paired sessions, for all tests of this file."""

    node: ServiceProcess
    phones: dict[str, str]
    jids: dict[str, str]
    friend: str


@pytest.fixture(scope="module")
async def house(
    postgres_server: EmbeddedPostgres,
    postgres_admin: "asyncpg.Connection[asyncpg.Record]",
    database_template: str,
    valkey_server: EmbeddedValkey,
    simulator_process: SimulatorProcess,
) -> AsyncIterator[House]:
    database = f"test_{uuid.uuid4().hex}"
    await postgres_admin.execute(f"CREATE DATABASE {database} TEMPLATE {database_template}")
    environment = {
        "DATABASE_URL": postgres_server.url_of(database),
        "REDIS_URL": valkey_server.url,
        "ZAP_WORKER_PRELOAD": faults.PRELOAD,
        **simulator_process.environment(),
    }
    simulator = simulator_process.control
    async with ServiceProcess(environment) as node:
        phones = {name: await new_phone(simulator, name) for name in NAMES}
        paired = await asyncio.gather(*(pair(node, simulator, name, phones[name]) for name in NAMES))
        yield House(node, phones, dict(zip(NAMES, paired, strict=True)), await new_phone(simulator, "Friend"))
        assert "Traceback" not in node.log()
    await postgres_admin.execute(f"DROP DATABASE {database} WITH (FORCE)")


def sends(number: signal.Signals) -> Fault:
    return lambda pid: os.kill(pid, number)


def provokes(fault: str) -> Fault:
    return lambda pid: faults.provoke(pid, fault)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (sends(signal.SIGKILL), "killed by SIGKILL"),
        (provokes("segfault"), "killed by SIGSEGV"),
        (provokes("abort"), "killed by SIGABRT"),
        (provokes("panic"), "nil pointer dereference"),
        (provokes("exit"), "exited with status 7"),
        (provokes("no-memory"), "exited with status 3 (CLIENT_ERROR), it said: MemoryError"),
    ],
    ids=["kill -9", "segmentation fault", "abort", "Go panic", "exit", "no memory"],
)
async def test_a_session_whose_process_dies_is_back_and_no_other_notices(
    house: House, simulator: SimulatorControl, fault: Fault, words: str
) -> None:
    node, jids = house.node, house.jids
    others = NAMES[1:]
    before = {name: await undisturbed(node, simulator, name, jids[name]) for name in others}
    watching = [asyncio.create_task(states_of(node, name)) for name in others]
    pid = process_of(node, "anna").pid
    gone = await away(node, simulator, "anna", jids["anna"], fault)
    for task in watching:
        task.cancel()
    assert await asyncio.gather(*watching) == [{State.STATE_CONNECTED}] * len(others)
    assert {name: await undisturbed(node, simulator, name, jids[name]) for name in others} == before
    assert gone.worst < DIED * PATIENCE
    assert words in log_of(node, pid)
    device = await simulator.device(jids["anna"])
    assert (device.overlaps, device.replaced) == (0, 0)
    await forget_failures(node, "anna")


async def test_sessions_whose_processes_are_stuck_are_back_and_the_log_says_where_they_were(
    house: House, simulator: SimulatorControl
) -> None:
    node, jids = house.node, house.jids
    before = await undisturbed(node, simulator, "emil", jids["emil"])

    async def stuck_event(pid: int) -> None:
        faults.provoke(pid, "stuck-event")
        await simulator.write(house.friend, house.phones["dora"], "never seen")

    happens: dict[str, Fault] = {
        "anna": sends(signal.SIGSTOP),
        "ben": provokes("hold-interpreter"),
        "cleo": provokes("deaf"),
        "dora": stuck_event,
    }
    pids = {name: process_of(node, name).pid for name in happens}
    gone: list[Away] = await asyncio.gather(
        *(away(node, simulator, name, jids[name], fault) for name, fault in happens.items())
    )
    assert max(each.worst for each in gone) < STUCK * PATIENCE
    assert await undisturbed(node, simulator, "emil", jids["emil"]) == before
    said = {name: log_of(node, pid) for name, pid in pids.items()}
    assert "has stalled; it is stopped by a signal" in said["anna"]
    assert "has stalled" in said["ben"]
    assert "no command has been obeyed" in said["cleo"]
    assert "an event of the library does not come to its end" in said["dora"]
    assert all("left on stderr" in log for log in said.values())
    for name, where in (("ben", "_hold_interpreter"), ("cleo", "_be_deaf"), ("dora", "_get_stuck_in_event")):
        assert f"in {where}" in said[name]
    for name in happens:
        await forget_failures(node, name)


async def test_last_words_that_hold_secrets_reach_the_log_without_them(
    house: House, simulator: SimulatorControl
) -> None:
    pid = process_of(house.node, "anna").pid
    await away(house.node, simulator, "anna", house.jids["anna"], provokes("blurt-out"))
    said = log_of(house.node, pid)
    assert "panic: " in said
    assert "goroutine 1 [running]" in said
    assert "unter2" not in said
    assert "491511234567" not in said
    await forget_failures(house.node, "anna")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_sessions_go_on_without_the_zygote_and_the_next_start_has_another(
    house: House, simulator: SimulatorControl, number: signal.Signals
) -> None:
    node, jids = house.node, house.jids
    before = {name: await undisturbed(node, simulator, name, jids[name]) for name in NAMES}
    zygote = node.processes()[1]
    os.kill(zygote.pid, number)
    await forget_failures(node, "anna")
    others = NAMES[1:]
    assert {name: await undisturbed(node, simulator, name, jids[name]) for name in others} == {
        name: before[name] for name in others
    }
    assert not zygote.is_running() or zygote.status() == "zombie"
    # Its children are nobody's any more that could say how they end; their own end is seen all the same.
    gone = await away(node, simulator, "ben", jids["ben"], sends(signal.SIGKILL))
    assert gone.worst < DIED * PATIENCE
    await forget_failures(node, "ben")
