"""Checks, before the service starts, that the database answers and that both of its addresses lead to it."""

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

CONNECT_RETRY_S = 2.0
"""Seconds between two attempts to connect."""

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
