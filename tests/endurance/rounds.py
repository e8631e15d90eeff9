"""Rounds that must leave nothing: a session switched off and on, a pairing that fails, a process killed."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

import psutil

from simulator.control import SimulatorControl
from tests.caller import State
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2

PATIENCE = 60.0
"""Seconds for one step of a round, on a machine that is busy with much else."""

Fail = Callable[[str, str], Awaitable[None]]
"""Has the pairing of a session, whose code was just shown, fail."""


class Rounds:
    """Rounds with the sessions of one node."""

    def __init__(self, node: ServiceProcess, simulator: SimulatorControl, phone: str) -> None:
        """`phone`: whose owner scans what does not become a device."""
        self._node = node
        self._simulator = simulator
        self._phone = phone

    @property
    def failures(self) -> Mapping[str, Fail]:
        """Ways in which a pairing fails, quick ones."""
        return {
            "cancelled": self._cancelled,
            "interrupted, then cancelled": self._interrupted,
            "scan rejected": lambda session_id, code: self._scanned(code, "bad-hmac"),
            "passkey": lambda session_id, code: self._scanned(code, "passkey"),
            "login refused": lambda session_id, code: self._scanned(code, "refused-login"),
            "refused": self._refused,
            "cancelled with the device saved": self._cancelled_late,
        }

    async def switch_off_and_on(self, session_id: str) -> None:
        """A connected session: off, and connected again."""
        await self.switch_off(session_id)
        await self.switch_on(session_id)

    async def switch_on(self, session_id: str) -> None:
        """A paired session: wanted, and connected."""
        await self._node.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))
        await self._node.wait_state(session_id, State.STATE_CONNECTED, timeout=PATIENCE)

    async def switch_off(self, session_id: str) -> None:
        """A session that is wanted: wanted no more, and nobody's."""
        await self._node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=session_id))
        await self._released(session_id)

    async def kill(self, session_id: str) -> None:
        """A connected session: its process killed, connected again; then off and on, so that it need not be patient."""
        before = await self._node.status(session_id)
        os.kill(process_of(self._node, session_id), signal.SIGKILL)
        await self._node.wait_state(session_id, State.STATE_CONNECTED, timeout=PATIENCE, after_epoch=before.owner.epoch)
        await self.switch_off_and_on(session_id)

    async def kill_zygote(self, session_id: str) -> None:
        """The zygote killed: a connected session goes on without it, and its next process comes from another one."""
        zygote = self._node.processes()[1].pid
        os.kill(zygote, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while len(alive := self._node.processes()) < 2 or alive[1].pid == zygote:
                await asyncio.sleep(0.02)
        await self.switch_off_and_on(session_id)

    async def fail_to_pair(self, session_id: str, how: str) -> None:
        """A session that was never paired: activated, its code shown, and back to UNPAIRED."""
        await self._node.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))
        code = await self._node.first_code(session_id, timeout=PATIENCE)
        await self.failures[how](session_id, code)
        await self.back_to_unpaired(session_id)

    async def use_up_codes(self, session_id: str) -> None:
        """The same, with nobody who scans: as long as the simulator's codes last."""
        await self._node.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))
        await self.back_to_unpaired(session_id)

    async def back_to_unpaired(self, session_id: str) -> None:
        """Until its pairing has ended and it is nobody's."""
        await self._node.wait_state(session_id, State.STATE_UNPAIRED, timeout=PATIENCE)
        await self._released(session_id)

    async def _cancelled(self, session_id: str, _: str) -> None:
        await self._node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=session_id))

    async def _interrupted(self, session_id: str, code: str) -> None:
        await self._simulator.drop("unpaired")
        async with asyncio.timeout(PATIENCE):
            while await self._node.first_code(session_id, timeout=PATIENCE) == code:
                await asyncio.sleep(0.02)
        await self._cancelled(session_id, code)

    async def _refused(self, session_id: str, code: str) -> None:
        """WhatsApp refuses the client that comes back after its connection was lost."""
        await self._simulator.fail(400, "unpaired")
        await self._simulator.drop("unpaired")

    async def _cancelled_late(self, session_id: str, code: str) -> None:
        """After the scan and before the first login: the rows of the device are there, and the library keeps them."""
        await self._simulator.hold("515")
        scanning = asyncio.create_task(self._simulator.scan(self._phone, code))
        try:
            async with asyncio.timeout(PATIENCE):
                while not (await self._node.status(session_id)).account.jid:
                    await asyncio.sleep(0.02)
            await self._cancelled(session_id, code)
            await self.back_to_unpaired(session_id)
        finally:
            await self._simulator.release("515")
            await scanning

    async def _scanned(self, code: str, flaw: str) -> None:
        await self._simulator.scan(self._phone, code, flaw)

    async def _released(self, session_id: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await self._node.status(session_id)).owner.node:
                await asyncio.sleep(0.02)


def process_of(node: ServiceProcess, session_id: str) -> int:
    """The process id of a session."""
    name = f"zap-session {session_id} "
    for process in node.session_processes():
        # One that is dying, of another session, has no name any more.
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(name):
                return int(process.pid)
    raise AssertionError(f"no process of {session_id} runs")
