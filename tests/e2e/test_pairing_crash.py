"""Everything killed at each step of a pairing: no credentials that nobody owns, no QR code for who is paired."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from simulator.control import SimulatorControl
from simulator.views import LinkView
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2

Step = Callable[[ServiceProcess, SimulatorControl, Sql, str, str], Awaitable[asyncio.Task[LinkView] | None]]


async def before_the_scan(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql, phone: str, code: str
) -> asyncio.Task[LinkView] | None:
    return None


async def scanned_but_the_client_has_not_heard(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql, phone: str, code: str
) -> asyncio.Task[LinkView] | None:
    await simulator.hold("pair-success")
    scan = asyncio.create_task(simulator.scan(phone, code))
    await simulator.wait_for_held("pair-success")
    return scan


async def between_scan_and_event(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql, phone: str, code: str
) -> asyncio.Task[LinkView] | None:
    """The library has saved the device; the node, stopped, has not seen the event."""
    await simulator.hold("515")
    os.kill(node.pid, signal.SIGSTOP)
    scan = asyncio.create_task(simulator.scan(phone, code))
    await simulator.wait_for_held("515")
    await eventually(lambda: sql.fetchval("SELECT count(*) FROM whatsmeow_device"), timeout=10)
    assert await sql.fetchval("SELECT credentials FROM zap.session") == "NONE"
    return scan


async def between_event_and_first_login(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql, phone: str, code: str
) -> asyncio.Task[LinkView] | None:
    await simulator.hold("login")
    scan = asyncio.create_task(simulator.scan(phone, code))
    await simulator.wait_for_held("login")
    async with asyncio.timeout(10):
        while await sql.fetchval("SELECT credentials FROM zap.session") != "UNCONFIRMED":
            await asyncio.sleep(0.01)
    return scan


STEPS = [
    (before_the_scan, False),
    (scanned_but_the_client_has_not_heard, False),
    (between_scan_and_event, True),
    (between_event_and_first_login, True),
]


@pytest.mark.parametrize(("step", "is_paired"), STEPS)
async def test_killed_at_each_step_of_a_pairing(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, step: Step, is_paired: bool
) -> None:
    phone = await new_phone(simulator, "Anna")
    node = ServiceProcess(node_environment)
    await node.start()
    await node.wait_ready()
    await node.create("anna")
    code = await node.first_code("anna")
    scan = await step(node, simulator, sql, phone, code)
    await node.kill_all()
    await simulator.clear_faults()
    if scan is not None:
        await asyncio.wait([scan])

    async with node:
        if is_paired:
            # The phone has linked the device: it must be found and connected, without another code.
            session = await node.wait_state("anna", State.STATE_CONNECTED, after_epoch=1)
            assert session.account.phone == f"+{phone}"
            shown = await sql.fetchval("SELECT count(*) FROM zap.event WHERE epoch > 1 AND type = 'PAIRING'")
            assert shown == 1, "only the outcome"
        else:
            assert await sql.fetchval("SELECT count(*) FROM whatsmeow_device") == 0
            # Until the dead node's lease ends, its code is believed to be on show.
            await node.wait_state("anna", State.STATE_PAIRING, after_epoch=1)
            fresh = await node.first_code("anna")
            assert fresh != code
            assert (await simulator.scan(phone, fresh)).outcome == "paired"
            await node.wait_state("anna", State.STATE_CONNECTED)
        assert (await node.outcome("anna")).outcome == session_pb2.PAIRING_OUTCOME_PAIRED
        await assert_every_device_is_owned(sql)


async def test_a_device_that_whatsapp_never_confirmed_is_removed(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """Killed between scan and event, and the login is refused afterwards: that was no pairing."""
    phone = await new_phone(simulator, "Anna")
    node = ServiceProcess(node_environment)
    await node.start()
    await node.wait_ready()
    await node.create("anna")
    scan = await between_scan_and_event(node, simulator, sql, phone, await node.first_code("anna"))
    await node.kill_all()
    await simulator.fail(401, phone)
    await simulator.release("515")
    if scan is not None:
        await asyncio.wait([scan])
    async with node:
        session = await node.wait_state("anna", State.STATE_UNPAIRED)
        assert session.desired_state == session_pb2.Session.DESIRED_STATE_INACTIVE
        async with asyncio.timeout(5):
            while await sql.fetchval("SELECT count(*) FROM whatsmeow_device"):
                await asyncio.sleep(0.02)
        await assert_every_device_is_owned(sql)
        await simulator.clear_faults()
        await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
        assert (await simulator.scan(phone, await node.first_code("anna"))).outcome == "paired"
        await node.wait_state("anna", State.STATE_CONNECTED)


async def assert_every_device_is_owned(sql: Sql) -> None:
    unowned = await sql.fetch(
        "SELECT jid FROM whatsmeow_device WHERE jid NOT IN (SELECT device_jid FROM zap.session WHERE device_jid <> '')"
    )
    assert not unowned
