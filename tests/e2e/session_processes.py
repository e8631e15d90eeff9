"""What the tests of session processes share: a pool aimed at a simulator, and a reader that waits for what is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from service.domain.observations import CodeShown, Connected, Ended, InboundEvent, Observation, Observed
from service.ports.processes import StartOrder
from service.workers.hosted_session import HostedSession
from service.workers.pool import Pool
from simulator.control import SimulatorControl
from zap.v1 import event_pb2

T = TypeVar("T", bound=Observation)

PERMIT_SECONDS = 120.0
_PATIENCE = 20.0


class Watched:
    """A process whose observations are kept until somebody waits for them, whatever came in between."""

    def __init__(self, process: HostedSession, *, commits: bool = True) -> None:
        """`commits`: confirm what is reported at once, as a node does when it has appended it."""
        self.process = process
        self.commits = commits
        self.heard: list[Observed] = []
        self._unread: list[Observed] = []
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def expect(
        self, kind: type[T], such: Callable[[T], bool] = lambda _: True, timeout: float = _PATIENCE
    ) -> tuple[T, Observed]:
        """The next observation of this kind; an Ended that was not waited for fails at once."""
        async with asyncio.timeout(timeout):
            while True:
                self._more.clear()
                for observed in self._unread:
                    if isinstance(observed.observation, kind) and such(observed.observation):
                        self._unread.remove(observed)
                        return observed.observation, observed
                    assert not isinstance(observed.observation, Ended), f"ended before {kind.__name__}: {observed}"
                await self._more.wait()

    async def message(
        self, such: Callable[[event_pb2.MessageReceived], bool] = lambda _: True
    ) -> tuple[event_pb2.MessageReceived, Observed]:
        """The next message of this kind."""

        def is_such(happening: InboundEvent) -> bool:
            told = told_by(happening)
            return told.HasField("message_received") and such(told.message_received)

        happening, observed = await self.expect(InboundEvent, is_such)
        return told_by(happening).message_received, observed

    async def receipt(self, kind: event_pb2.Receipt.Kind.ValueType | None = None) -> event_pb2.Receipt:
        """The next receipt of a kind, or of any."""

        def is_such(happening: InboundEvent) -> bool:
            return happening.kind == "RECEIPT" and kind in {None, told_by(happening).receipt.kind}

        happening, _ = await self.expect(InboundEvent, is_such)
        return told_by(happening).receipt

    @property
    def messages(self) -> list[event_pb2.MessageReceived]:
        """Every message that has come so far."""
        told = [told_by(heard.observation) for heard in self.heard if isinstance(heard.observation, InboundEvent)]
        return [event.message_received for event in told if event.HasField("message_received")]

    @property
    def has_ended(self) -> bool:
        """Whether it is dead."""
        return bool(self.heard) and isinstance(self.heard[-1].observation, Ended)

    async def ended(self, timeout: float = _PATIENCE) -> Ended:
        """How it ends."""
        ended, _ = await self.expect(Ended, timeout=timeout)
        await self._reading
        return ended

    async def _read(self) -> None:
        async for batch in self.process.observations():
            self.heard += batch
            self._unread += batch
            self._more.set()
            if self.commits and (number := max(observed.number for observed in batch)) > 0:
                self.process.confirm(number)


def told_by(happening: InboundEvent) -> event_pb2.Event:
    """What consumers are told of it."""
    return event_pb2.Event.FromString(happening.encoded)


async def start(
    pool: Pool, session_id: str = "one", jid: str = "", epoch: int = 1, permit: float = 0.0, *, commits: bool = True
) -> Watched:
    until = time.monotonic() + (permit or PERMIT_SECONDS)
    return Watched(await pool.start(StartOrder(session_id, epoch, jid, "", until)), commits=commits)


async def pair(pool: Pool, control: SimulatorControl, pn: str, session_id: str = "one") -> tuple[Watched, str]:
    """A process that was paired with this phone number, and the JID of its device."""
    await control.create_phone(pn)
    watched = await start(pool, session_id)
    code, _ = await watched.expect(CodeShown)
    await control.scan(pn, code.text)
    connected, _ = await watched.expect(Connected)
    return watched, connected.jid
