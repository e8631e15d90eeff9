"""Backends that a dead process of a session has left: they may yet carry out what it had sent them.

What whatsmeow writes carries no epoch that could be checked, so it is not refused like ours: whoever could still write
it is ended before the next process starts.
"""

import structlog

from service.domain.errors import Unavailable
from service.domain.lease import Lease, backends_of
from service.store.database import Database

log = structlog.get_logger(__name__)


class StaleBackends:
    """Of all sessions of a node."""

    def __init__(self, database: Database, *, is_pooled: bool) -> None:
        """`is_pooled`: there may be a pooler between session processes and Postgres, and backends be used in turn."""
        self._database = database
        self._is_pooled = is_pooled
        self._is_refused = False

    async def end(self, lease: Lease) -> None:
        """End those of earlier epochs. It needs no fence: an epoch before this one is over, whoever asks."""
        if self._is_refused:
            return
        try:
            async with self._database.autocommit() as connection:
                found = await connection.rows(
                    "end_stragglers", backends_of(lease.session_id), lease.epoch, not self._is_pooled
                )
        except Unavailable as error:
            if error.metadata.get("cause") != "InsufficientPrivilegeError":
                raise
            # Once: it is refused to every session, and none is kept from its start by it.
            self._is_refused = True
            log.warning("Postgres does not let us end backends of dead processes.", session_id=lease.session_id)
            return
        if found:
            log.info("Ended backends of a dead process.", session_id=lease.session_id, backends=len(found))
