"""What callers are told while things go wrong: Status of every session, asked again and again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from tests.caller import State
from tests.chaos.world import World
from tests.scenarios.background import beside
from tests.service_process import error_info
from zap.v1 import session_pb2

_EVERY = 0.1
_PATIENCE = 15.0


@dataclass(frozen=True)
class Look:
    """An answer of Status, at a moment in Unix seconds: a state's name, or why there was none."""

    at: float
    state: str
    asked_at: float = 0.0
    is_answer: bool = True

    @property
    def says_connected(self) -> bool:
        """Whether it told that the session is connected."""
        return self.state == "STATE_CONNECTED"


class Watch:
    """`async with watching(world) as watch:` looks until the end of the block."""

    def __init__(self, world: World) -> None:
        self.looks: dict[str, list[Look]] = {session_id: [] for session_id in world.there.sessions}
        self._node = world.node

    def are_all_connected(self, since: float) -> bool:
        """Whether every answer since a moment was CONNECTED, and each session has had one."""
        recent = [[look for look in looks if look.at >= since] for looks in self.looks.values()]
        return all(looks and all(look.says_connected for look in looks) for looks in recent)

    async def look(self, session_id: str) -> None:
        """Ask for its Status again and again."""
        request = session_pb2.StatusRequest(session_id=session_id)
        while True:
            asked_at = time.time()
            try:
                session = await self._node.sessions.Status(request, timeout=_PATIENCE)
                look = Look(time.time(), State.Name(session.state), asked_at)
            except grpc.aio.AioRpcError as error:
                look = Look(time.time(), _words(error), asked_at, is_answer=False)
            self.looks[session_id].append(look)
            await asyncio.sleep(_EVERY)


@asynccontextmanager
async def watching(world: World) -> AsyncIterator[Watch]:
    """Look at every session beside the block."""
    watch = Watch(world)
    async with beside(*(watch.look(session_id) for session_id in watch.looks)):
        yield watch


def _words(error: grpc.aio.AioRpcError) -> str:
    code: str = error.code().name
    try:
        return f"{code} {error_info(error).reason}"
    except AssertionError:
        # Made by gRPC itself, on this side or on the other.
        return f"{code}: {error.details()}"
