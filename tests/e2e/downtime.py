"""How long a session is away when something happens to its process, seen by a caller and by WhatsApp."""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psutil

from simulator.control import SimulatorControl
from tests.caller import State
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2


@dataclass(frozen=True)
class Away:
    """Seconds from the fault on."""

    until_status: float
    """… to Status saying CONNECTED under a later epoch."""
    until_login: float
    """… to the login of another process, by the simulator's clock."""

    @property
    def worst(self) -> float:
        """The longer of the two."""
        return max(self.until_status, self.until_login)


@dataclass(frozen=True)
class Undisturbed:
    """What must stay the same of a session that nothing happens to."""

    pid: int
    epoch: int
    state: "session_pb2.Session.State.ValueType"
    last_disconnected: int
    logins: int
    connections: int
    closed_intervals: int


def process_of(node: ServiceProcess, session_id: str) -> psutil.Process:
    """The process of a session, whoever its parent is by now."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith(f"zap-session {session_id} ") and process.environ().get("ZAP_LISTEN") == node.address:
                return process
    raise AssertionError(f"no process of {session_id}")


def log_of(node: ServiceProcess, pid: int) -> str:
    """What the node's log says of one session process, stacks included."""
    lines = re.split(r"^(?=\d{4}-\d\d-\d\dT)", node.log(), flags=re.MULTILINE)
    return "".join(line for line in lines if f" pid={pid} " in f"{line} ".replace("\n", " "))


async def undisturbed(node: ServiceProcess, simulator: SimulatorControl, session_id: str, jid: str) -> Undisturbed:
    """As it is now."""
    session, device = await node.status(session_id), await simulator.device(jid)
    return Undisturbed(
        pid=process_of(node, session_id).pid,
        epoch=session.owner.epoch,
        state=session.state,
        last_disconnected=session.evidence.last_disconnected_time.ToNanoseconds(),
        logins=device.logins,
        connections=device.connections,
        closed_intervals=sum(1 for interval in device.intervals if interval.disconnected_at is not None),
    )


async def away(
    node: ServiceProcess,
    simulator: SimulatorControl,
    session_id: str,
    jid: str,
    fault: Callable[[int], Awaitable[None] | None],
    timeout: float = 60.0,
) -> Away:
    """Have it happen to the session's process, and wait until the session is back."""
    epoch = (await node.status(session_id)).owner.epoch
    logins = (await simulator.device(jid)).logins
    pid = process_of(node, session_id).pid
    began, wall = time.monotonic(), time.time()
    if (doing := fault(pid)) is not None:
        await doing
    await node.wait_state(session_id, State.STATE_CONNECTED, timeout=timeout, after_epoch=epoch)
    until_status = time.monotonic() - began
    device = await simulator.wait_for_connected(jid, logins=logins + 1)
    return Away(until_status, device.intervals[-1].connected_at - wall)


async def forget_failures(node: ServiceProcess, session_id: str) -> None:
    """Restart it: the next fault is its first again, as far as the back-off is concerned."""
    epoch = (await node.status(session_id)).owner.epoch
    await node.sessions.Restart(session_pb2.RestartRequest(session_id=session_id))
    await node.wait_state(session_id, State.STATE_CONNECTED, after_epoch=epoch, timeout=30)


async def states_of(node: ServiceProcess, session_id: str) -> "set[session_pb2.Session.State.ValueType]":
    """Every state that Status shows until this is cancelled."""
    shown = set()
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            shown.add((await node.status(session_id)).state)
            await asyncio.sleep(0.05)
    return shown
