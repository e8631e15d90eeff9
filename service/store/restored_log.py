"""A log that was copied into another server (pg_dump, pg_restore): its places are of a server that this one is not.

Transactions of the copy's server have other numbers. If those in the log are higher than any here, nobody would be
given what is in it before this server has come as far; and what comes now would lie before all of it.
"""

from typing import Any

import structlog

from service.store.queries import statement

log = structlog.get_logger(__name__)


async def settle_restored_log(connection: Any) -> None:
    """Put what a copy holds before all that comes, in its order, and make all tokens invalid. Once, under the lock.

    A session's events keep their order: their ids rise with their sequences.
    """
    if not await connection.fetchval(statement("is_log_restored")):
        return
    async with connection.transaction():
        await connection.execute(statement("settle_restored_events"))
        await connection.execute(statement("settle_restored_log"))
    log.warning("The event log comes from another server; resume tokens of before are not valid any more.")
