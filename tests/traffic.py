"""People who write to a session's account at a steady rate, and what of it is in the event log."""

import asyncio
import itertools
from types import TracebackType
from typing import Self

from tests.e2e.sql import Sql
from tests.simulator.control import SimulatorControl
from zap.v1 import event_pb2

RATE = 20.0
"""Messages per second to each session."""


class Traffic:
    """`async with Traffic(control, friend, phone):` has a friend write until the block ends."""

    def __init__(
        self, simulator: SimulatorControl, friend: str, phone: str, rate: float = RATE, *, since: int = 0
    ) -> None:
        """`since`: the number of the first text, for who writes to one phone more than once."""
        self._simulator = simulator
        self._friend = friend
        self._phone = phone
        self._pause = 1 / rate
        self._numbers = itertools.count(since)
        self._writing: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.written: list[str] = []
        """Texts that WhatsApp has taken, in their order."""

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._writing is not None:
            await self._writing

    async def reach(self, count: int) -> None:
        """Until so many more were written."""
        wanted = len(self.written) + count
        while len(self.written) < wanted:
            if self._writing is not None and self._writing.done():
                await self._writing
            await asyncio.sleep(0.01)

    async def _write(self) -> None:
        for number in self._numbers:
            if self._stopping.is_set():
                return
            text = f"{self._phone} {number}"
            await self._simulator.write(self._friend, self._phone, text)
            self.written.append(text)
            await asyncio.sleep(self._pause)


async def logged(sql: Sql, session_id: str) -> list[str]:
    """The texts of all messages in a session's log, in the log's order."""
    rows = await sql.fetch(
        "SELECT payload FROM zap.event WHERE session_id = $1 AND type = 'MESSAGE_RECEIVED' ORDER BY sequence",
        session_id,
    )
    return [event_pb2.Event.FromString(row["payload"]).message_received.text for row in rows]


async def logged_by_epoch(sql: Sql, session_id: str) -> list[list[str]]:
    """The texts of all messages in a session's log, those of each epoch by themselves, in the log's order."""
    rows = await sql.fetch(
        "SELECT epoch, payload FROM zap.event WHERE session_id = $1 AND type = 'MESSAGE_RECEIVED' ORDER BY sequence",
        session_id,
    )
    texts: dict[int, list[str]] = {}
    for row in rows:
        texts.setdefault(row["epoch"], []).append(event_pb2.Event.FromString(row["payload"]).message_received.text)
    return list(texts.values())


async def wait_logged(sql: Sql, session_id: str, texts: list[str], timeout: float = 10.0) -> list[str]:
    """What the log has once these are in it, or as soon as the time is over."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not set(texts) <= set(found := await logged(sql, session_id)):
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.05)
    return found


async def sequences(sql: Sql, session_id: str) -> list[int]:
    """Of all events of a session, ascending."""
    rows = await sql.fetch("SELECT sequence FROM zap.event WHERE session_id = $1 ORDER BY sequence", session_id)
    return [row["sequence"] for row in rows]
