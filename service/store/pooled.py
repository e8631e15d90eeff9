"""The database by way of a pooler that gives a connection to another client after each transaction (PgBouncer).

Nothing may be agreed with the server for longer than a transaction: a prepared statement or a setting would be another
client's, and a pooler refuses settings that it does not know when the connection is made.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.store.database import TIMEOUTS, Connection, Database


class PooledDatabase(Database):
    """A Database that lives behind a pooler as well as without one. It has no types but Postgres's own (no jsonb)."""

    def _manners(self) -> dict[str, Any]:
        return {"statement_cache_size": 0, "server_settings": {"application_name": self._name}}

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """A transaction, with its timeouts for itself."""
        async with super().transaction(snapshot=snapshot) as connection:
            await connection.run("limit_transaction", *(self._timeouts[name] for name in TIMEOUTS))
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Connection]:
        """A transaction too: outside of one, even the two halves of a statement may come to two servers."""
        async with self.transaction() as connection:
            yield connection
