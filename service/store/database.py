"""The connection pool, with timeouts that let nobody hold a lock for long, and one meaning for every failure."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from service.domain.errors import Unavailable
from service.store.queries import statement

Record = Mapping[str, Any]
"""A row: its columns by name."""

#: A frozen node must not hold a lock over anybody: Postgres itself ends its transaction.
TIMEOUTS = {
    "statement_timeout": "5s",
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "5s",
}

#: What says that the database is away, overloaded or taken over, and that the same call may succeed later.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectInUseError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.CannotConnectNowError,
    # The password or the name has changed while we run; `reach` looked at both at the start.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    # It is ill itself: its disk, its memory, or a fault of its own.
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.InternalClientError,
    # Another node has just changed a view (migrate.py): asyncpg forgets its statements, and the next try is right.
    asyncpg.InvalidCachedStatementError,
)


CONNECTING = 2.0
"""Seconds in which a connection is made. The first packet is sent again after 1 s, then after 3 and 7: whoever waited
longer would still wait when a partition is over, and sessions are to be back 3 s after it."""

CLOSING = 1.0
"""Seconds in which a connection may say goodbye; a server that is away never answers."""


def storable(text: str) -> str:
    """A text that strangers chose, without the one character that Postgres has no place for.

    It would refuse the whole statement, and whoever sent the text could end a session as often as they like.
    """
    return text.replace("\0", "")


class Connection:
    """A connection inside a transaction, on which the statements of queries.sql run by name."""

    def __init__(self, raw: Any) -> None:
        # Any: asyncpg has no types.
        self._raw = raw

    async def run(self, name: str, *arguments: Any) -> None:
        """For a statement without rows."""
        await self._raw.execute(statement(name), *arguments)

    async def rows(self, name: str, *arguments: Any) -> Sequence[Record]:
        """All rows."""
        found: Sequence[Record] = await self._raw.fetch(statement(name), *arguments)
        return found

    async def row(self, name: str, *arguments: Any) -> Record | None:
        """The first row, if there is one."""
        found: Record | None = await self._raw.fetchrow(statement(name), *arguments)
        return found

    async def value(self, name: str, *arguments: Any) -> Any:
        """The first column of the first row, or None."""
        return await self._raw.fetchval(statement(name), *arguments)


class Database:
    """A pool of connections to DATABASE_URL. Transactions raise Unavailable when the database is."""

    def __init__(self, url: str, *, name: str, size: int = 10, timeouts: dict[str, str] | None = None) -> None:
        self._url = url
        self._name = name[:63]
        self._size = size
        self._timeouts = {**TIMEOUTS, **(timeouts or {})}
        self._pool: Any = None

    async def open(self) -> None:
        """Connect. Raises what asyncpg raises: who starts the service wants to know exactly."""
        self._pool = await asyncpg.create_pool(
            self._url,
            # With a floor the pool itself reconnects in an outage, and complains in stack traces.
            min_size=0,
            max_size=self._size,
            timeout=CONNECTING,
            command_timeout=6,
            # Nothing of ours outlives a transaction on a connection; a reset would double the cost of a read.
            reset=_leave_as_it_is,
            init=_prepare,
            # All statements are short, and some are expected to read much: to compile those takes longer than they do.
            server_settings={"application_name": self._name, "jit": "off", **self._timeouts},
        )

    async def close(self) -> None:
        """Let transactions in progress end, for a moment, and disconnect."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CLOSING):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        self._pool = None

    async def ping(self) -> None:
        """Ask the server for an answer, as any call does. Raises Unavailable."""
        async with self.autocommit() as connection:
            await connection.value("ping")

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """A transaction: committed at the end of the block, rolled back if it raises.

        `snapshot`: it only reads, and sees everything as it was at one moment.
        """
        manners: dict[str, Any] = {"isolation": "repeatable_read", "readonly": True} if snapshot else {}
        async with self._connection() as raw, raw.transaction(**manners), self._cut_in_vain(raw):
            yield Connection(raw)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Connection]:
        """For statements that stand alone, each a transaction of its own: a third of the round trips of one of many."""
        async with self._connection() as raw:
            yield Connection(raw)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._pool is None:
            raise RuntimeError("the database is not open")
        cancellations = _cancellations()
        try:
            async with self._pool.acquire(timeout=5) as raw, self._cut_in_vain(raw):
                yield raw
        except _AWAY as error:
            if _cancellations() > cancellations:
                # What fails on the way out must not swallow the cancellation.
                raise asyncio.CancelledError from error
            raise Unavailable(
                "the database does not answer; nothing was changed that you were not told of",
                reason="DATABASE_UNAVAILABLE",
                metadata={"cause": type(error).__name__},
            ) from error

    @asynccontextmanager
    async def _cut_in_vain(self, raw: Any) -> AsyncIterator[None]:
        """Whoever is cancelled, or has waited in vain, leaves at once: a rollback would wait for the same silence.

        A server that is there sees the connection end, and rolls back by itself.
        """
        try:
            yield
        except asyncio.CancelledError:
            raw.terminate()
            raise
        except TimeoutError:
            raw.terminate()
            # A network can have forgotten all connections, and tells nobody. Those who take the others that are as old
            # as this one must not find that out one after the other.
            await self._pool.expire_connections()
            raise


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


async def _leave_as_it_is(connection: Any) -> None:
    """asyncpg's own reset is a round trip."""


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
