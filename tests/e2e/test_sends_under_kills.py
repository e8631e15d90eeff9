"""Sends in the middle of which processes and nodes are killed: each ends in a state that is true."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc

from simulator.control import SimulatorControl
from tests.e2e.downtime import process_of
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess

MESSAGES = 90
KILLS = 3
ARRIVED = {"SENT", "DELIVERED", "READ"}


async def test_sends_in_the_middle_of_which_the_process_is_killed(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))

        async def kill() -> None:
            process_of(node, "anna").kill()

        await send_and_kill(node, friend, lambda: arrivals(simulator, friend), kill)
        await judge(sql, simulator, friend)


async def test_sends_in_the_middle_of_which_the_node_is_killed(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))

        async def kill() -> None:
            # Not kill_all(), which ends the callers' calls too.
            for process in node.processes():
                process.kill()
            await node.wait()
            await node.start()
            await node.wait_ready()

        await send_and_kill(node, friend, lambda: arrivals(simulator, friend), kill)
        await judge(sql, simulator, friend)


async def test_sends_in_the_middle_of_which_the_connection_is_lost(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await send_and_kill(node, friend, lambda: arrivals(simulator, friend), lambda: simulator.drop(jid))
        await judge(sql, simulator, friend)


async def send_and_kill(
    node: ServiceProcess, friend: str, arrived: Callable[[], Awaitable[int]], kill: Callable[[], Awaitable[object]]
) -> None:
    """Send with repeated calls, as callers do, and kill while messages are on their way."""
    sends = [asyncio.create_task(send(node, friend, f"r{number}")) for number in range(MESSAGES)]
    async with asyncio.timeout(120):
        await kill_at_each_share(arrived, kill)
    await asyncio.gather(*sends)


async def kill_at_each_share(arrived: Callable[[], Awaitable[int]], kill: Callable[[], Awaitable[object]]) -> None:
    for number in range(1, KILLS + 1):
        share = MESSAGES * number // (KILLS + 2)
        while await arrived() < share:
            await asyncio.sleep(0.005)
        await kill()


async def send(node: ServiceProcess, friend: str, request_id: str) -> None:
    """Call Send with one request_id until it is answered."""
    async with asyncio.timeout(120):
        while True:
            try:
                await node.send("anna", f"+{friend}", request_id, request_id)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            except asyncio.CancelledError:
                # The harness has opened another channel, to the node's next process.
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
            await asyncio.sleep(0.1)


async def arrivals(simulator: SimulatorControl, friend: str) -> int:
    return len(await simulator.inbox(friend))


async def judge(sql: Sql, simulator: SimulatorControl, friend: str) -> None:
    """Wait until every message is settled, and compare with what the friend's phone has."""

    async def states() -> dict[str, str]:
        rows = await sql.fetch("SELECT request_id, state FROM zap.message")
        return {row["request_id"]: row["state"] for row in rows}

    async def is_settled() -> bool:
        return "ACCEPTED" not in (await states()).values()

    await eventually(is_settled, timeout=60)
    settled = await states()
    assert len(settled) == MESSAGES
    times = Counter[str]()
    for message in await simulator.inbox(friend):
        times[message.text] += message.times
    assert {request_id: times[request_id] for request_id, state in settled.items() if state in ARRIVED} == {
        request_id: 1 for request_id, state in settled.items() if state in ARRIVED
    }
    assert not [request_id for request_id, state in settled.items() if state == "FAILED"]
    unknown = [request_id for request_id, state in settled.items() if state == "OUTCOME_UNKNOWN"]
    assert len(unknown) <= KILLS
    assert max(times.values()) == 1, "none came twice"
