"""Refuses to start on a server with abandoned prepared transactions (two-phase commit).

A prepared transaction outlives its connection, restarts of its server, and every timeout. While it exists, Watch
delivers nothing that was appended after it.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from service.store.queries import statement
from service.store.startup_checks import DatabaseUnreachable, connected

log = structlog.get_logger(__name__)

PREPARED_GRACE_S = 10.0
"""Seconds after which a prepared transaction counts as abandoned; regular two-phase commits are much shorter."""
_POLL_S = 0.5


async def refuse_prepared_transactions(url: str, setting: str, grace: float = PREPARED_GRACE_S) -> None:
    """Wait until the prepared transactions that exist now have ended, in all databases of the server.

    Raises DatabaseUnreachable after `grace` seconds.
    """
    async with connected(url) as connection:
        deadline = time.monotonic() + grace
        first = left = await _prepared(connection)
        while left and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
            left = {gid: row for gid, row in (await _prepared(connection)).items() if first.get(gid) == row}
        if left:
            raise _refusal(setting, list(left.values()))
        if int(await connection.fetchval("SELECT current_setting('max_prepared_transactions')")):
            log.warning(
                "Postgres allows prepared transactions: an abandoned one would stop Watch until it is ended."
                " Set max_prepared_transactions to 0 if they are not needed.",
                setting=setting,
            )


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
