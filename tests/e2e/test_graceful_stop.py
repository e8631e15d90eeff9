"""Stopping while events are under way, or while the other side does not do its part: bounded, and nothing is lost."""

import os
import re
import signal
import time

import pytest

from service.sessions.runner import STOP_GRACE_S
from simulator.control import SimulatorControl
from tests.e2e import faults
from tests.e2e.downtime import forget_failures, log_of, process_of
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.e2e.test_stop import alive
from tests.event_log import judge_log
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from tests.traffic import Traffic, gather_people

SESSIONS = int(os.environ.get("ZAP_TEST_SESSIONS", "5"))
MESSAGES = 200
MUCH = 1000.0
"""Messages a second: more than a session takes."""


@pytest.fixture
def environment(node_environment: dict[str, str]) -> dict[str, str]:
    return node_environment | {"ZAP_WORKER_PRELOAD": faults.PRELOAD}


async def test_a_stop_under_load_is_gentle_and_costs_no_message(
    environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    phones, friend = {"anna": await new_phone(simulator, "Anna")}, await new_phone(simulator, "Friend")
    async with ServiceProcess(environment) as node:
        await pair(node, simulator, "anna", phones["anna"])
        pid = process_of(node, "anna").pid
        # The next message waits at WhatsApp while the handler of this one takes its time.
        faults.provoke(pid, "slow-events")
        people = await gather_people(simulator, friend, list(phones.values()))
        async with Traffic(simulator, people, phones, MUCH) as traffic:
            await traffic.reach(MESSAGES)
        written = traffic.written
        assert len((await judge_log(sql, written, patience=0.0)).lost) > MESSAGES // 2, "most have yet to come"
        began = time.monotonic()
        await forget_failures(node, "anna")
        assert time.monotonic() - began < 4 * STOP_GRACE_S
        judgement = await judge_log(sql, written, patience=30.0)
        assert not judgement.problems, judgement.problems
        assert "exited with status 0 (STOPPED)" in log_of(node, pid)


async def test_a_library_that_hangs_in_disconnect_does_not_hold_up_the_stop(
    environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        pid = process_of(node, "anna").pid
        faults.provoke(pid, "hang-in-disconnect")
        began = time.monotonic()
        await forget_failures(node, "anna")
        assert time.monotonic() - began < 4 * STOP_GRACE_S
        assert "exited with status 0 (STOPPED)" in log_of(node, pid)
        device = await simulator.wait_for_connected(jid, logins=2)
        assert (device.overlaps, device.replaced) == (0, 0)


async def test_a_node_with_many_sessions_stops_all_of_them_at_once(
    environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with ServiceProcess(environment) as node:
        names = [f"shop-{number}" for number in range(SESSIONS)]
        jids = [await pair(node, simulator, name, await new_phone(simulator, name)) for name in names]
        processes = node.processes()
        assert len(processes) == SESSIONS + 2
        # As a service manager does that stops all processes of a service: only the node may act on it.
        for process in processes:
            os.kill(process.pid, signal.SIGTERM)
        began = time.monotonic()
        assert await node.wait() == 0
        assert time.monotonic() - began < 4 * STOP_GRACE_S
        assert not alive(processes)
        assert not await sql.fetchval("SELECT count(*) FROM zap.lease WHERE incarnation IS NOT NULL")
        log = node.log()
        assert len(re.findall(r"exited with status 0 \(STOPPED\).* session_id=shop-", log)) == SESSIONS
        assert "PROCESS_DIED" not in log
        assert "CLIENT_ERROR" not in log
    for jid in jids:
        device = await simulator.device(jid)
        assert (device.connections, device.overlaps, device.replaced, device.logins) == (0, 0, 0, 1)


async def test_a_node_that_is_asked_twice_does_not_wait(
    environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        processes = node.processes()
        # It cannot hear, and would be waited for.
        os.kill(process_of(node, "anna").pid, signal.SIGSTOP)
        os.kill(node.pid, signal.SIGTERM)
        await eventually(lambda: "The node stops." in node.log(), timeout=20)
        began = time.monotonic()
        os.kill(node.pid, signal.SIGTERM)
        assert await node.wait() == 0
        assert time.monotonic() - began < STOP_GRACE_S
        assert not alive(processes)
        assert "Traceback" not in node.log()
