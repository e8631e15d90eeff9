"""What arrives in the event log, and when: read again and again, straight from the server."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import asyncpg

from tests.chaos.world import World
from zap.v1 import event_pb2

_EVERY = 0.1
_SILENT = 2.0
"""Seconds after which a server that does not answer is asked anew."""
#: By id, and not only what is new: a smaller one may be committed later.
_LOGGED = """
SELECT id, session_id, payload FROM zap.event WHERE id > $1 AND type = 'MESSAGE_RECEIVED' ORDER BY id
"""
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True)
class Logged:
    """A message in the event log, and when it was first seen there, in Unix seconds."""

    message_id: str
    text: str
    at: float


class Reading:
    """`async with Reading(world) as reading:` reads all that is logged from now on, outages notwithstanding."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._logged: dict[str, dict[int, Logged]] = {session.session_id: {} for session in world.sessions}
        self._since = 0
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        connection = await asyncpg.connect(self._world.estate.server.url)
        self._since = await connection.fetchval("SELECT coalesce(max(id), 0) FROM zap.event")
        await connection.close()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            # Or whatever it did not read any more would be taken for lost.
            if not self._reading.cancelled() and (failure := self._reading.exception()) is not None:
                raise failure

    @property
    def logged(self) -> Mapping[str, Sequence[Logged]]:
        """Per session, in the log's order."""
        return {session_id: [found[place] for place in sorted(found)] for session_id, found in self._logged.items()}

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                async with asyncio.timeout(_SILENT):
                    connection = await asyncpg.connect(self._world.estate.server.url)
                try:
                    await self._keep_reading(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(_EVERY)

    async def _keep_reading(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        while True:
            for row in await connection.fetch(_LOGGED, self._since, timeout=_SILENT):
                self._take(row)
            await asyncio.sleep(_EVERY)

    def _take(self, row: asyncpg.Record) -> None:
        found = self._logged[row["session_id"]]
        if row["id"] in found:
            return
        received = event_pb2.Event.FromString(row["payload"]).message_received
        if received.text:
            found[row["id"]] = Logged(received.message_id, received.text, time.time())
