"""Terminates Postgres backends of dead session processes, which may still execute what the process had sent.

whatsmeow's writes carry no epoch, so they cannot be fenced. Therefore the backends that could still write are
terminated before the next process starts.
"""

import structlog

from service.domain.errors import Unavailable
from service.domain.lease import Lease, backends_of
from service.store.database import Database

log = structlog.get_logger(__name__)


class StaleBackends:
    """Terminates stale backends for all sessions of a node."""

    def __init__(self, database: Database, *, is_pooled: bool) -> None:
        """`is_pooled`: a pooler between session processes and Postgres may share backends among sessions."""
        self._database = database
        self._is_pooled = is_pooled
        self._is_refused = False

    async def end(self, lease: Lease) -> None:
        """Terminate the backends of earlier epochs. This needs no fence, because those epochs are over in any case."""
        if self._is_refused:
            return
        try:
            async with self._database.autocommit() as connection:
                found = await connection.rows(
                    "end_stale_backends", backends_of(lease.session_id), lease.epoch, not self._is_pooled
                )
        except Unavailable as error:
            if error.metadata.get("cause") != "InsufficientPrivilegeError":
                raise
            # Log once: the privilege is missing for every session, and sessions start without it.
            self._is_refused = True
            log.warning("No privilege to terminate backends of dead processes.", session_id=lease.session_id)
            return
        if found:
            log.info("Terminated backends of a dead process.", session_id=lease.session_id, backends=len(found))
