"""Repairs the log positions of an event log that was copied into another server (pg_dump, pg_restore).

Positions hold the first server's transaction numbers. If these are higher than any here, Watch would not deliver the
copied events until this server has reached them, and new events would sort before them.
"""

from typing import Any

import structlog

from service.store.queries import statement

log = structlog.get_logger(__name__)


async def settle_restored_log(connection: Any) -> None:
    """Move copied events before all new ones, and invalidate all tokens. Needs the schema lock; does nothing twice.

    A session's events keep their order: their ids rise with their sequences.
    """
    if not await connection.fetchval(statement("is_log_restored")):
        return
    async with connection.transaction():
        await connection.execute(statement("settle_restored_events"))
        await connection.execute(statement("settle_restored_log"))
    log.warning("The event log comes from another server; earlier resume tokens are invalid.")
