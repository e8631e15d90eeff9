"""What arrives in the event log, and when: read again and again, straight from the server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg

from tests.chaos.world import World
from tests.event_log import Logged
from tests.scenarios.background import beside

_EVERY = 0.1
_SILENT = 2.0
"""Seconds after which a server that does not answer is asked anew."""
#: By id, and not only what is new: a smaller one may be committed later.
_LOGGED = """
SELECT id, session_id, payload FROM zap.event WHERE id > $1 AND type = 'MESSAGE_RECEIVED' ORDER BY id
"""
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Reading:
    """`async with reading(world) as read:` reads all that is logged from now on, outages notwithstanding."""

    def __init__(self, world: World, since: int) -> None:
        """`since`: the id of the last event that does not count."""
        self._url = world.estate.server.url
        self._logged: dict[str, dict[int, Logged]] = {session_id: {} for session_id in world.there.sessions}
        self._since = since

    @property
    def logged(self) -> Mapping[str, Sequence[Logged]]:
        """Per session, in the log's order."""
        return {session_id: [found[place] for place in sorted(found)] for session_id, found in self._logged.items()}

    async def again(self) -> Mapping[str, Sequence[Logged]]:
        """Return what is there now."""
        return self.logged

    async def read(self) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                async with asyncio.timeout(_SILENT):
                    connection = await asyncpg.connect(self._url)
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
        if (received := Logged.of(row["payload"], time.time())).text:
            found[row["id"]] = received


@asynccontextmanager
async def reading(world: World) -> AsyncIterator[Reading]:
    """Read beside the block. Raises what ended it before: what it did not read would be taken for lost."""
    connection = await asyncpg.connect(world.estate.server.url)
    since = await connection.fetchval("SELECT coalesce(max(id), 0) FROM zap.event")
    await connection.close()
    found = Reading(world, since)
    async with beside(found.read()):
        yield found
