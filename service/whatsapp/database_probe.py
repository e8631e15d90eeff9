"""Whether Postgres answers somebody else, asked by a process whose own question it has not answered for long."""

import asyncio
import random
import threading

from service.domain.errors import Unavailable
from service.store.pooled import PooledDatabase

_PATIENCE = 2.0
_PAUSE = (1.0, 2.0)
"""Seconds between two questions: hundreds of processes may ask at once."""


class DatabaseProbe:
    """Asks again and again, on a thread and a connection of its own, until there is an answer."""

    def __init__(self, url: str, name: str) -> None:
        """`url` as asyncpg takes it; it may lead through PgBouncer, whose own greeting is no answer."""
        self._url = url
        self._name = name
        self._answered = threading.Event()
        self._is_asking = False

    def start(self) -> None:
        """Ask from now on, if it does not yet."""
        if self._is_asking:
            return
        self._is_asking = True
        threading.Thread(target=lambda: asyncio.run(self._ask()), name="database-probe", daemon=True).start()

    def has_answered(self, wait: float) -> bool:
        """Whether it has by now, or does within so many seconds."""
        return self._answered.wait(wait)

    async def _ask(self) -> None:
        database = PooledDatabase(self._url, name=self._name, size=1)
        await database.open()
        while not self._answered.is_set():
            try:
                # A transaction, so that a pooler has to ask the server.
                async with asyncio.timeout(_PATIENCE), database.transaction():
                    self._answered.set()
            except (Unavailable, TimeoutError):
                await asyncio.sleep(random.uniform(*_PAUSE))  # noqa: S311 - so that not all ask in one moment
            except Exception:  # noqa: BLE001 - whatever it says, it says something
                self._answered.set()
        await database.close()
