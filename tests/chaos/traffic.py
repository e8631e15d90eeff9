"""Messages that simulated phones write to sessions, at a steady pace, and a note of each."""

import asyncio
import itertools
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.chaos.world import World


@dataclass(frozen=True)
class Written:
    """A message that was written; `at` in Unix seconds."""

    message_id: str
    session_id: str
    sender: str
    text: str
    at: float


class Traffic:
    """`async with Traffic(world, rate) as traffic:` writes until the end of the block."""

    def __init__(self, world: World, rate: float) -> None:
        """`rate`: messages a second, to all sessions in turn, from all friends in turn."""
        self.written: list[Written] = []
        self._world = world
        self._every = 1 / rate
        self._writing: asyncio.Task[None] | None = None
        self._enough = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not cancelled: a message whose writing is cut short may have been written, and nobody would know.
        self._enough.set()
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        sessions, friends = self._world.sessions, self._world.friends
        due = time.monotonic()
        for number in itertools.count():
            if self._enough.is_set():
                return
            session = sessions[number % len(sessions)]
            sender = friends[number // len(sessions) % len(friends)]
            at, text = time.time(), f"{session.session_id} {number}"
            message_id = await self._world.control.write(sender, session.phone, text)
            self.written.append(Written(message_id, session.session_id, sender, text, at))
            due += self._every
            await asyncio.sleep(max(0.0, due - time.monotonic()))
