"""Wishes that change faster than their session's owner looks: what runs is always what is wanted now."""

import asyncio

import grpc

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess, error_info
from zap.v1 import session_pb2

QUICK = 5.0
"""Seconds. A code that is not from a new process would come with the next rotation only, up to 60 s later."""


async def test_a_pairing_that_is_cancelled_and_wanted_again_shows_a_new_code(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    phone = await new_phone(simulator, "Anna")
    async with ServiceProcess(node_environment) as node:
        await node.create("anna")
        stale = await node.first_code("anna")
        await node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id="anna"))
        await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
        fresh = await node.first_code("anna", timeout=QUICK)
        assert fresh != stale
        assert (await simulator.scan(phone, fresh)).outcome == "paired"
        await node.wait_state("anna", State.STATE_CONNECTED)
        assert "Traceback" not in node.log()


async def test_a_session_made_anew_does_not_get_the_device_of_the_deleted_one(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await node.sessions.Delete(session_pb2.DeleteRequest(session_id="anna", force=True))
        await node.create("anna")
        await node.first_code("anna", timeout=QUICK)
        await simulator.wait_for_device(jid, lambda device: device.connections == 0, timeout=QUICK)
        assert not (await node.status("anna")).account.jid
        assert "Traceback" not in node.log()


async def test_a_connected_session_switched_off_and_on_is_connected_and_says_so(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id="anna"))
        await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
        await node.wait_state("anna", State.STATE_CONNECTED, timeout=QUICK)
        device = await simulator.wait_for_connected(jid)
        assert (device.overlaps, device.replaced) == (0, 0)


async def test_a_restart_that_meets_a_deactivation_is_refused_not_broken(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))

        async def restart() -> str:
            try:
                await node.sessions.Restart(session_pb2.RestartRequest(session_id="anna"))
            except grpc.aio.AioRpcError as error:
                return str(error_info(error).reason)
            return "OK"

        async def switch() -> None:
            await node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id="anna"))
            await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))

        answers: set[str | None] = set()
        for _ in range(20):
            answers.update(await asyncio.gather(*(restart() for _ in range(8)), switch()))
        assert answers <= {"OK", "SESSION_NOT_ACTIVE", None}
        await node.wait_state("anna", State.STATE_CONNECTED)
        assert "Traceback" not in node.log()
