"""The durable log, for what must be kept whoever owns the session by now."""

from collections.abc import Sequence

from service.domain.events import Event, NewEvent
from service.domain.lease import Lease
from service.store.database import Database
from service.store.log import Encode, append, lock_log


class PostgresEventLog:
    """ports.EventLog on Postgres."""

    def __init__(self, database: Database, encode: Encode) -> None:
        self._database = database
        self._encode = encode

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Sequence[Event]:
        """Append what came in, under the epoch it came in under, even if the lease has since been lost.

        WhatsApp considers it delivered: refusing it would lose it. Only what came in for a session that was deleted,
        and whose id another one has by now, is nobody's.
        """
        async with self._database.transaction() as connection:
            await lock_log(connection, lease.session_id)
            if await connection.value("is_former_epoch", lease.session_id, lease.epoch):
                return []
            appended = await append(connection, self._encode, lease.session_id, lease.epoch, events)
            if appended:
                await connection.run("note_inbound", lease.session_id, max(event.time for event in appended))
            return appended
