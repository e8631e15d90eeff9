"""Before the service starts: is the database there, and do both of its addresses lead to the same one?"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import structlog

log = structlog.get_logger(__name__)

RETRY = 2.0
"""Seconds between two tries."""

#: No waiting mends these: the address or the password is wrong.
_WRONG = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    ValueError,
)
#: What waiting may mend: nothing listens yet, a name is not known yet, it is starting or full.
_NOT_YET = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class DatabaseUnreachable(Exception):
    """A setting names a database that cannot be used; the message says which, why, and what to do."""


async def reach(url: str, setting: str, patience: float) -> None:
    """Return once a connection was made; raise DatabaseUnreachable if that takes longer than `patience` seconds."""
    give_up = time.monotonic() + patience
    where, server = _address(url), _server(url)
    while True:
        try:
            async with connected(url):
                return
        except _WRONG as error:
            raise DatabaseUnreachable(f"{setting}: {where} does not let us in: {error}") from error
        except _NOT_YET as error:
            cause = str(error) or type(error).__name__
            if time.monotonic() + RETRY > give_up:
                raise DatabaseUnreachable(
                    f"{setting}: no database answers at {where} within {patience:g} s: {cause}."
                    f" Is Postgres running there, and can this machine reach it?"
                ) from error
            log.warning("No database answers yet; trying again.", setting=setting, address=server, cause=cause)
            await asyncio.sleep(RETRY)


async def check_same_database(url: str, other_url: str, other_setting: str) -> None:
    """Raise DatabaseUnreachable if the two addresses lead to different databases.

    The second may go through PgBouncer. An advisory lock is per database: what one address holds, the other must not
    get.
    """
    key = secrets.randbits(62)
    async with connected(url) as one, connected(other_url) as other, one.transaction(), other.transaction():
        await one.fetchval("SELECT pg_advisory_xact_lock($1)", key)
        if await other.fetchval("SELECT pg_try_advisory_xact_lock($1)", key):
            raise DatabaseUnreachable(
                f"{other_setting}: {_address(other_url)} is another database than DATABASE_URL's {_address(url)};"
                f" credentials would be written where nobody looks for them"
            )


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection for a moment, perhaps through a pooler, which has no place for prepared statements."""
    connection = await asyncpg.connect(url, timeout=5, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


def _address(url: str) -> str:
    """Host, port and database of a URL: what may be shown of it."""
    return f"{_server(url)}{urlsplit(url).path}"


def _server(url: str) -> str:
    """Host and port. By themselves they are readable in a log, where a long path behind them is taken for a key."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the local socket"
