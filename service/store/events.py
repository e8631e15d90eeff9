"""The durable log, for what must be kept whoever owns the session by now."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from service.domain.events import Event, NewEvent
from service.domain.lease import Lease
from service.domain.observations import Happening
from service.domain.records import MessageState
from service.store.database import Connection, Database
from service.store.log import Encode, append, lock_log

#: What is wrong with a row, and will be wrong with it again; not with the database, nor with those beside it.
_REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)

OnRefused = Callable[[str, NewEvent, Exception], None]
"""Hears of an event that Postgres will never take: of which session, which, and why."""


class PostgresEventLog:
    """ports.EventLog on Postgres."""

    def __init__(self, database: Database, encode: Encode, on_refused: OnRefused) -> None:
        self._database = database
        self._encode = encode
        self._on_refused = on_refused

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Sequence[Event]:
        """Append what came in, under the epoch it came in under, even if the lease has since been lost.

        WhatsApp considers it delivered: refusing it would lose it. Only what came in for a session that was deleted,
        and whose id another one has by now, is nobody's. One that Postgres refuses must not keep back the others: it is
        left out, alone.
        """
        try:
            async with self._database.transaction() as connection:
                return await _append_inbound(connection, self._encode, lease.session_id, lease.epoch, events)
        except _REFUSALS as error:
            if len(events) == 1:
                self._on_refused(lease.session_id, events[0], error)
                return []
            middle = len(events) // 2
            return [*await self.append(lease, events[:middle]), *await self.append(lease, events[middle:])]


async def end_frozen_append(database: Database, session_id: str, still_for: timedelta) -> bool:
    """End a transaction that holds this session's log and has done nothing for so long; whether there was one.

    Raises Unavailable.
    """
    async with database.autocommit() as connection:
        return bool(await connection.rows("end_frozen_append", session_id, still_for))


async def rehearse(database: Database) -> None:
    """Do all that keeping an inbound event takes, and roll it back. Raises Unavailable, asyncpg.PostgresError."""
    nobody = "REHEARSAL"  # no session's id: those are in small letters
    event = NewEvent(Happening("", b""), datetime.now(UTC), frame=1)
    try:
        async with database.transaction() as connection:
            await _append_inbound(connection, lambda _: (nobody, b""), nobody, 1, [event])
            await connection.rows("deliver_messages", nobody, [], MessageState.READ.value)
            raise _Rehearsed  # noqa: TRY301 - by which the transaction is rolled back
    except _Rehearsed:
        return


class _Rehearsed(Exception):
    """Everything was permitted."""


async def _append_inbound(
    connection: Connection, encode: Encode, session_id: str, epoch: int, events: Sequence[NewEvent]
) -> Sequence[Event]:
    await lock_log(connection, session_id)
    return await append(connection, encode, session_id, epoch, events, is_inbound=True)
