"""Before the service starts: are there transactions in the server that nobody ends?

A prepared transaction (two-phase commit) outlives its connection, its server's restart, and every timeout. While it is
there, Watch shows nothing that was appended after it.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from service.store.queries import statement
from service.store.startup_checks import DatabaseUnreachable, connected

log = structlog.get_logger(__name__)

PATIENCE = 10.0
"""Seconds in which whoever uses two-phase commit as it is meant to be has ended what was there at first."""
_LOOK = 0.5


async def refuse_prepared_transactions(url: str, setting: str, patience: float = PATIENCE) -> None:
    """Return once no prepared transaction is left that was there at first, in any database of the server.

    Raises DatabaseUnreachable if that takes longer than `patience` seconds.
    """
    async with connected(url) as connection:
        give_up = time.monotonic() + patience
        first = left = await _prepared(connection)
        while left and time.monotonic() < give_up:
            await asyncio.sleep(_LOOK)
            left = {gid: row for gid, row in (await _prepared(connection)).items() if first.get(gid) == row}
        if left:
            raise _refusal(setting, list(left.values()))
        if int(await connection.fetchval("SELECT current_setting('max_prepared_transactions')")):
            log.warning(
                "Postgres allows prepared transactions: one that is forgotten would hold up Watch for ever."
                " Set max_prepared_transactions to 0 if nobody needs them.",
                setting=setting,
            )


async def _prepared(connection: Any) -> Mapping[str, Any]:
    return {row["gid"]: row for row in await connection.fetch(statement("prepared_transactions"))}


def _refusal(setting: str, left: list[Any]) -> DatabaseUnreachable:
    oldest = left[0]
    return DatabaseUnreachable(
        f"{setting}: its server has {len(left)} prepared transaction(s) that nobody ends, and while one is there no"
        f" consumer of Watch is shown anything newer. The oldest is {oldest['literal']} of {oldest['owner']}, in the"
        f" database {oldest['database']}, since {oldest['prepared']:%Y-%m-%d %H:%M:%S%z}. In that database run COMMIT"
        f" PREPARED {oldest['literal']} or ROLLBACK PREPARED {oldest['literal']}; pg_prepared_xacts lists all"
    )
