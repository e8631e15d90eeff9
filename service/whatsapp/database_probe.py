"""Whether Postgres answers somebody else, asked by a process whose own question it has not answered for long."""

import asyncio
import random
import threading
from collections.abc import Callable

from service.domain.errors import Unavailable
from service.store.pooled import PooledDatabase

_PATIENCE = 2.0
_MOMENT = 1.0
_PAUSE = (1.0, 2.0)
"""Seconds between two questions: hundreds of processes may ask at once."""


class DatabaseProbe:
    """Asks again and again, on a thread and a connection of its own, until there is an answer."""

    def __init__(self, url: str, name: str, then: Callable[[], None]) -> None:
        """`url` as asyncpg takes it; it may lead through PgBouncer, whose own greeting is no answer.

        `then` is called by the probe's thread, a moment after there was one: others who wait may have theirs by then.
        """
        self._url = url
        self._name = name
        self._then = then
        self._is_asking = False

    def start(self) -> None:
        """Ask from now on, if it does not yet."""
        if self._is_asking:
            return
        self._is_asking = True
        threading.Thread(target=self._run, name="database-probe", daemon=True).start()

    def _run(self) -> None:
        try:
            asyncio.run(self._ask())
        finally:
            # Whatever fails: who waits for an answer would wait for ever.
            self._then()

    async def _ask(self) -> None:
        database = PooledDatabase(self._url, name=self._name, size=1)
        await database.open()
        await self._until_answered(database)
        await database.close()
        await asyncio.sleep(_MOMENT)

    async def _until_answered(self, database: PooledDatabase) -> None:
        while True:
            try:
                # A transaction, so that a pooler has to ask the server.
                async with asyncio.timeout(_PATIENCE), database.transaction():
                    return
            except (Unavailable, TimeoutError):
                await asyncio.sleep(random.uniform(*_PAUSE))  # noqa: S311 - so that not all ask in one moment
            except Exception:  # noqa: BLE001 - whatever it says, it says something
                return
