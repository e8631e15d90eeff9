"""Wraps the connection pool: timeouts bound how long locks are held, and outages raise Unavailable."""

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

#: Postgres itself ends the transactions of a frozen node, which would otherwise keep its locks.
TIMEOUTS = {
    "statement_timeout": "5s",
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "5s",
}

#: Errors of a database that is down, overloaded or failing over: the same call may succeed later.
_UNAVAILABLE_ERRORS = (
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
    # The password or the name was changed after `reach` checked them at the start.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    # A full disk, no memory, or a fault of the server.
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.InternalClientError,
    # Another node has just changed a view (migrate.py). asyncpg drops its cached statements, and a retry succeeds.
    asyncpg.InvalidCachedStatementError,
)


CONNECT_TIMEOUT_S = 2.0
"""Seconds to make a connection. TCP sends the first packet again after 1, 3 and 7 s: with a longer timeout a connection
would still wait when a partition is over, and sessions must be back 3 s after it."""

CLOSE_TIMEOUT_S = 1.0
"""Seconds to close the pool gracefully; a server that is down never answers."""


def strip_nul(text: str) -> str:
    """Return a text from outside without NUL, which Postgres cannot store.

    With a NUL the whole statement would fail, so that senders of such texts could end sessions.
    """
    return text.replace("\0", "")


class Connection:
    """Runs the statements of queries.sql by name on one connection."""

    def __init__(self, raw: Any) -> None:
        # Any: asyncpg has no types.
        self._raw = raw

    async def run(self, name: str, *arguments: Any) -> None:
        """Run a statement that returns no rows."""
        await self._raw.execute(statement(name), *arguments)

    async def rows(self, name: str, *arguments: Any) -> Sequence[Record]:
        """Return all rows."""
        found: Sequence[Record] = await self._raw.fetch(statement(name), *arguments)
        return found

    async def row(self, name: str, *arguments: Any) -> Record | None:
        """Return the first row, or None."""
        found: Record | None = await self._raw.fetchrow(statement(name), *arguments)
        return found

    async def value(self, name: str, *arguments: Any) -> Any:
        """Return the first column of the first row, or None."""
        return await self._raw.fetchval(statement(name), *arguments)


class Database:
    """Holds a pool of connections. Its transactions raise Unavailable while the database is unavailable."""

    def __init__(self, url: str, *, name: str, size: int = 10, timeouts: dict[str, str] | None = None) -> None:
        self._url = url
        self._name = name[:63]
        self._size = size
        self._timeouts = {**TIMEOUTS, **(timeouts or {})}
        self._pool: Any = None

    async def open(self) -> None:
        """Open the pool. Raises what asyncpg raises, so that a failed start shows the exact cause."""
        self._pool = await asyncpg.create_pool(
            self._url,
            # With a minimum above 0 the pool itself reconnects in an outage, and logs stack traces.
            min_size=0,
            max_size=self._size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=6,
            # Connections keep no state between transactions; a reset would double the cost of a read.
            reset=_skip_reset,
            init=_set_up,
            # The planner overestimates some statements; compiling them would take longer than running them.
            server_settings={"application_name": self._name, "jit": "off", **self._timeouts},
        )

    async def close(self) -> None:
        """Wait at most CLOSE_TIMEOUT_S for transactions in progress, and disconnect."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        self._pool = None

    async def ping(self) -> None:
        """Run a trivial statement. Raises Unavailable."""
        async with self.autocommit() as connection:
            await connection.value("ping")

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """Open a transaction: commit it at the end of the block, roll it back if the block raises.

        With `snapshot` it is read-only, and all of its statements see the same snapshot.
        """
        options: dict[str, Any] = {"isolation": "repeatable_read", "readonly": True} if snapshot else {}
        async with self._connection() as raw, raw.transaction(**options), self._abort_on_timeout(raw):
            yield Connection(raw)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Connection]:
        """Yield a connection on which each statement is one transaction, with a third of the round trips."""
        async with self._connection() as raw:
            yield Connection(raw)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._pool is None:
            raise RuntimeError("the database is not open")
        cancellations = _cancellations()
        try:
            async with self._pool.acquire(timeout=5) as raw, self._abort_on_timeout(raw):
                yield raw
        except _UNAVAILABLE_ERRORS as error:
            if _cancellations() > cancellations:
                # An error during the cleanup must not replace the cancellation.
                raise asyncio.CancelledError from error
            raise Unavailable(
                "the database does not answer; no change was confirmed",
                reason="DATABASE_UNAVAILABLE",
                metadata={"cause": type(error).__name__},
            ) from error

    @asynccontextmanager
    async def _abort_on_timeout(self, raw: Any) -> AsyncIterator[None]:
        """Close the connection on a cancellation or a timeout; a rollback could wait for a silent server.

        A running server rolls back when it sees the connection end.
        """
        try:
            yield
        except asyncio.CancelledError:
            raw.terminate()
            raise
        except TimeoutError:
            raw.terminate()
            # A network can drop all connections silently. The others are replaced too, so that calls do not time out
            # on them one after the other.
            await self._pool.expire_connections()
            raise


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


async def _skip_reset(connection: Any) -> None:
    """Save the round trip of asyncpg's reset."""


async def _set_up(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
