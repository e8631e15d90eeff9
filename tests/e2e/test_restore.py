"""Many sessions that fell together come back at the rate, in order and to be seen; nobody who is in a hurry waits.

Four a second, because ten is about what two cores can start: it would not show that anything is held back.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

import aiohttp
import psutil

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2

SESSIONS = 30
RATE = 4
AT_ONCE = RATE
"""A second's worth."""
ALONE = 2.0
"""Seconds in which a session is back whose process was killed, whatever else goes on (docs/supervision.md)."""
BACK = 5.0
"""Seconds beyond what the rate takes: from the last start to its login, on a busy machine."""
Look = Callable[[], Awaitable[Mapping[str, session_pb2.Session]]]
NAMES = [f"shop-{number:02}" for number in range(SESSIONS)]


async def test_everything_killed_comes_back_in_turns(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with ServiceProcess({**node_environment, "ZAP_CONNECTS_PER_SECOND": "1000"}) as node:
        jids = await _pair_all(node, simulator)
        by_activity = await _be_active(sql)
        await node.kill_all()

    async with ServiceProcess({**node_environment, "ZAP_CONNECTS_PER_SECOND": str(RATE)}) as node:
        can_begin = time.time()
        await _look_at_the_middle(node, simulator)
        await _all_connected(node, {"new"}, can_begin + SESSIONS / RATE + BACK)
        began = _told_at(node, "is ready after")
        _check_pace(await _logins(simulator, jids, began), began)
        _check_order(node, by_activity)
        assert await _starts(node) == {("CLAIMED", "CONNECTED"): SESSIONS, ("FALLEN", "CONNECTED"): 1}
        assert (await _numbers(node))["zap_sessions_unclaimed"] == 0

        await _fall_all_at_once(node, simulator, jids, by_activity[-1])


async def _look_at_the_middle(node: ServiceProcess, simulator: SimulatorControl) -> None:
    """Some are connected and most are not: what is shown of them, and who need not wait for them."""
    sessions = await _until_connected(node, 5)
    unclaimed = [s for s in sessions.values() if not s.HasField("owner")]
    assert len(unclaimed) >= SESSIONS / 3
    assert {(s.state, s.reason.code) for s in unclaimed} == {(State.STATE_RECONNECTING, "WAITING_FOR_TURN")}
    numbers = await _numbers(node)
    assert numbers["zap_sessions_wanted"] == SESSIONS
    # As the last look saw it, before a claim or two.
    assert SESSIONS / 3 <= numbers["zap_sessions_unclaimed"] < SESSIONS
    assert numbers["zap_sessions_connected"] < SESSIONS

    killed_at, jid = await _kill_the_first(node, simulator)
    await node.create("new")
    await node.first_code("new")
    device = await simulator.wait_for_connected(jid)
    assert device.intervals[-1].connected_at - killed_at < ALONE
    assert len(_connected(await _list(node))) < SESSIONS, "they were before the others"


class Queue:
    """The sessions that have waited for a start permit since the fall, as first seen, and the metric's maximum."""

    def __init__(self, node: ServiceProcess) -> None:
        self._node = node
        self.seen: dict[str, session_pb2.Session] = {}
        self.most = 0.0

    async def look(self) -> dict[str, session_pb2.Session]:
        sessions = await _list(self._node)
        waiting = {name: one for name, one in sessions.items() if one.reason.code == "WAITING_FOR_TURN"}
        self.seen = waiting | self.seen
        self.most = max(self.most, (await _numbers(self._node))["zap_sessions_waiting"])
        return sessions


async def _fall_all_at_once(
    node: ServiceProcess, simulator: SimulatorControl, jids: Mapping[str, str], last: str
) -> None:
    """Every process is killed: their owner has them wait, says so, and forgets the one that is deactivated."""
    await node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id="new"))
    fell_at, queue = time.time(), Queue(node)
    for process in node.session_processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # that of the session that was deactivated may have ended
            process.kill()

    async def last_waits() -> bool:
        await queue.look()
        return last in queue.seen

    await eventually(last_waits, f"{last} to wait for its start")
    await node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=last))

    async def last_is_released() -> bool:
        await queue.look()
        return not (await node.status(last)).HasField("owner")

    await eventually(last_is_released, f"the release of {last}")
    assert len(_connected(await _list(node))) < SESSIONS - 1, "it was released before it was to start"
    await _all_connected(node, {"new", last}, fell_at + SESSIONS / RATE + BACK, queue.look)
    assert len(queue.seen) >= SESSIONS / 2
    assert all(session.HasField("owner") for session in queue.seen.values())
    assert queue.most > AT_ONCE
    logins = await _logins(simulator, jids, fell_at)
    _check_pace(logins, fell_at)
    assert len(logins) == SESSIONS - 1, "the one that is deactivated was not started"


# --- steps ------------------------------------------------------------------------------------------------------


async def _pair_all(node: ServiceProcess, simulator: SimulatorControl) -> dict[str, str]:
    """Connected sessions, a few at a time; their devices' addresses."""
    few = asyncio.Semaphore(4)

    async def pair_one(name: str) -> str:
        async with few:
            return await pair(node, simulator, name, await new_phone(simulator, name))

    return dict(zip(NAMES, await asyncio.gather(*map(pair_one, NAMES)), strict=True))


async def _be_active(sql: Sql) -> list[str]:
    """Something came in for each at a time of its own; their names, who was active last first."""
    order = random.Random("activity").sample(NAMES, SESSIONS)
    for minutes, name in enumerate(order, 1):
        await sql.execute(
            "UPDATE zap.session SET last_inbound_at = now() - make_interval(mins => $2),"
            " paired_at = now() - interval '1 month' WHERE session_id = $1",
            name,
            minutes,
        )
    return order


async def _kill_the_first(node: ServiceProcess, simulator: SimulatorControl) -> tuple[float, str]:
    """Kill the process that was started first; when it was, and the address of its device."""
    first = min(node.session_processes(), key=psutil.Process.create_time)
    open_before = {device.jid for device in await simulator.devices() if device.connections}
    killed_at = time.time()
    os.kill(first.pid, signal.SIGKILL)
    async with asyncio.timeout(ALONE):
        while True:
            for device in await simulator.devices():
                # It may be back by now.
                has_ended = any((interval.disconnected_at or 0.0) >= killed_at for interval in device.intervals)
                if has_ended and device.jid in open_before:
                    return killed_at, device.jid
            await asyncio.sleep(0.01)


async def _list(node: ServiceProcess) -> dict[str, session_pb2.Session]:
    answer = await node.sessions.List(session_pb2.ListRequest(page_size=100))
    return {session.session_id: session for session in answer.sessions}


def _connected(sessions: Mapping[str, session_pb2.Session]) -> list[str]:
    return [name for name, session in sessions.items() if session.state == State.STATE_CONNECTED]


async def _until_connected(node: ServiceProcess, count: int) -> dict[str, session_pb2.Session]:
    """Until so many have been connected anew."""
    async with asyncio.timeout(30):
        while len(_connected(sessions := await _list(node))) < count or _connected_before(sessions):
            await asyncio.sleep(0.02)
    return sessions


def _connected_before(sessions: Mapping[str, session_pb2.Session]) -> bool:
    """Some are still believed to be what they were before everything was killed."""
    return any(sessions[name].owner.epoch < 2 for name in _connected(sessions))


async def _all_connected(node: ServiceProcess, but: set[str], until: float, look: Look | None = None) -> None:
    while set(_connected(sessions := await (look or partial(_list, node))())) != sessions.keys() - but:
        assert time.time() < until, f"not all are back: {sessions}"
        await asyncio.sleep(0.1)


async def _logins(simulator: SimulatorControl, jids: Mapping[str, str], since: float) -> list[float]:
    """When each of the devices logged in first since then."""
    mine = [device for device in await simulator.devices() if device.jid in jids.values()]
    firsts = [[one.connected_at for one in device.intervals if one.connected_at > since][:1] for device in mine]
    return sorted(moment for first in firsts for moment in first)


def _check_pace(logins: Sequence[float], began: float) -> None:
    """No login is earlier than the rate allows. That the machine is slow makes them later, never earlier."""
    for number, moment in enumerate(logins, 1):
        assert moment >= began + (number - AT_ONCE) / RATE - 0.05, f"login {number} of {logins} after {began}"


def _check_order(node: ServiceProcess, by_activity: Sequence[str]) -> None:
    """Who was active last is started first; those that are started at once overtake each other."""
    started = re.findall(r"Started a session process\..*lane=CLAIMED.*session_id=(shop-\d+)", node.log())
    assert sorted(started) == NAMES
    for place, name in enumerate(started):
        assert abs(by_activity.index(name) - place) <= AT_ONCE, f"{started} instead of {by_activity}"


def _told_at(node: ServiceProcess, words: str) -> float:
    line = next(line for line in node.log().splitlines() if words in line)
    return datetime.fromisoformat(line.split()[0]).timestamp()


async def _numbers(node: ServiceProcess) -> dict[str, float]:
    """Metrics without labels, by name, and with them, by all that stands before the number."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{node.http_port}/metrics") as page:
        lines = [line for line in (await page.text()).splitlines() if not line.startswith("#")]
    return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines)}


async def _starts(node: ServiceProcess) -> dict[tuple[str, str], float]:
    numbers = await _numbers(node)
    return {
        (lane, outcome): number
        for name, number in numbers.items()
        for lane, outcome in re.findall(r'zap_session_starts_total{lane="(\w+)",outcome="(\w+)"}', name)
    }
