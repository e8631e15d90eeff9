"""Checks the database before a node serves.

It must answer, and both of its addresses must lead to it. An abandoned prepared transaction (two-phase commit) would
stop Watch. The event log may have been copied from another server.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import structlog

from service.store.queries import statement

log = structlog.get_logger(__name__)

CONNECT_RETRY_S = 2.0
"""Seconds between two attempts to connect."""
PREPARED_GRACE_S = 10.0
"""Seconds after which a prepared transaction counts as abandoned; regular two-phase commits are much shorter."""
_PREPARED_POLL_S = 0.5

#: Errors that a retry does not fix: the address or the password is wrong.
_PERMANENT_ERRORS = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    ValueError,
)
#: Errors that a retry may fix: nothing listens yet, the name is not known yet, the server is starting or full.
_TRANSIENT_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class DatabaseUnreachable(Exception):
    """A setting names an unusable database; the message names the setting, the cause and the remedy."""


async def reach(url: str, setting: str, timeout: float) -> None:
    """Wait until a connection succeeds. Raises DatabaseUnreachable after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    where, server = _address(url), _server(url)
    while True:
        try:
            async with connected(url):
                return
        except _PERMANENT_ERRORS as error:
            raise DatabaseUnreachable(f"{setting}: {where} does not let us in: {error}") from error
        except _TRANSIENT_ERRORS as error:
            cause = str(error) or type(error).__name__
            if time.monotonic() + CONNECT_RETRY_S > deadline:
                raise DatabaseUnreachable(
                    f"{setting}: no database answers at {where} within {timeout:g} s: {cause}."
                    f" Is Postgres running there, and can this machine reach it?"
                ) from error
            log.warning("No database answers yet; retrying.", setting=setting, address=server, cause=cause)
            await asyncio.sleep(CONNECT_RETRY_S)


async def check_same_database(url: str, other_url: str, other_setting: str) -> None:
    """Raise DatabaseUnreachable if the two addresses lead to different databases.

    The second may go through PgBouncer. Advisory locks are per database, so a lock that is held through one address
    must not be available through the other.
    """
    key = secrets.randbits(62)
    async with connected(url) as one, connected(other_url) as other, one.transaction(), other.transaction():
        await one.fetchval("SELECT pg_advisory_xact_lock($1)", key)
        if await other.fetchval("SELECT pg_try_advisory_xact_lock($1)", key):
            raise DatabaseUnreachable(
                f"{other_setting}: {_address(other_url)} is another database than DATABASE_URL's {_address(url)};"
                f" credentials would be written to a database that this node does not read"
            )


async def refuse_prepared_transactions(url: str, setting: str, grace: float = PREPARED_GRACE_S) -> None:
    """Wait until the prepared transactions that exist now have ended, in all databases of the server.

    A prepared transaction outlives its connection, restarts of its server, and every timeout. While it exists, Watch
    delivers nothing that was appended after it. Raises DatabaseUnreachable after `grace` seconds.
    """
    async with connected(url) as connection:
        deadline = time.monotonic() + grace
        first = left = await _prepared(connection)
        while left and time.monotonic() < deadline:
            await asyncio.sleep(_PREPARED_POLL_S)
            left = {gid: row for gid, row in (await _prepared(connection)).items() if first.get(gid) == row}
        if left:
            raise _refusal(setting, list(left.values()))
        if int(await connection.fetchval("SELECT current_setting('max_prepared_transactions')")):
            log.warning(
                "Postgres allows prepared transactions: an abandoned one would stop Watch until it is ended."
                " Set max_prepared_transactions to 0 if they are not needed.",
                setting=setting,
            )


async def settle_restored_log(connection: Any) -> None:
    """Repair the positions of an event log that was copied into another server (pg_dump, pg_restore).

    Positions hold the first server's transaction numbers. If these are higher than any here, Watch would not deliver
    the copied events until this server has reached them, and new events would sort before them. So copied events move
    before all new ones, and all tokens become invalid. A session's events keep their order: their ids rise with their
    sequences. Needs the schema lock; does nothing twice.
    """
    if not await connection.fetchval(statement("is_log_restored")):
        return
    async with connection.transaction():
        await connection.execute(statement("settle_restored_events"))
        await connection.execute(statement("settle_restored_log"))
    log.warning("The event log comes from another server; earlier resume tokens are invalid.")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Yield a short connection without prepared statements, since it may go through a pooler."""
    connection = await asyncpg.connect(url, timeout=5, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


def _address(url: str) -> str:
    """Return a URL's host, port and database: the parts without secrets."""
    return f"{_server(url)}{urlsplit(url).path}"


def _server(url: str) -> str:
    """Return a URL's host and port. In logs a long path after them would be masked as a key."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the local socket"


async def _prepared(connection: Any) -> Mapping[str, Any]:
    return {row["gid"]: row for row in await connection.fetch(statement("prepared_transactions"))}


def _refusal(setting: str, left: list[Any]) -> DatabaseUnreachable:
    oldest = left[0]
    return DatabaseUnreachable(
        f"{setting}: its server has {len(left)} prepared transaction(s) that are not ended, and while one is"
        f" there Watch delivers nothing newer. The oldest is {oldest['literal']} of {oldest['owner']}, in the"
        f" database {oldest['database']}, since {oldest['prepared']:%Y-%m-%d %H:%M:%S%z}. In that database run COMMIT"
        f" PREPARED {oldest['literal']} or ROLLBACK PREPARED {oldest['literal']}; pg_prepared_xacts lists all"
    )
