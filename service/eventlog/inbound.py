"""Appends inbound events to the log, in one round trip, and only for the session's owner."""

from collections.abc import Callable, Sequence

import asyncpg

from service.domain.errors import epoch_over, session_not_found
from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.receipts import device_receipts, message_updates
from service.domain.records import MessageState
from service.ports.eventlog import Appended
from service.ports.metrics import Metrics
from service.store.database import Database, strip_nul
from service.store.event_rows import Encode, appended, columns
from service.store.refusals import counts_refusals

#: Errors caused by one row, which would fail again: neither the database nor other rows are at fault.
_ROW_ERRORS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)

OnRefused = Callable[[str, NewEvent, Exception], None]
"""Receives an event that Postgres rejects for good: session id, event, error."""


class PostgresEventLog:
    """Implements ports.eventlog.EventLog on Postgres."""

    def __init__(
        self, database: Database, encode: Encode, on_refused: OnRefused, metrics: Metrics | None = None
    ) -> None:
        self._database = database
        self.metrics = metrics or Metrics()
        self._encode = encode
        self._on_refused = on_refused

    @counts_refusals("append")
    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append new events and apply the receipts. Raises LeaseLost or NotFound; nothing is written then.

        An event that Postgres rejects is left out, so that the others are appended.
        """
        appended = await self._append_acceptable(lease, events)
        self.metrics.repeated(len(events) - len(appended.events))
        return appended

    async def _append_acceptable(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        try:
            return await self._append(lease, events)
        except _ROW_ERRORS as error:
            if len(events) == 1:
                self._on_refused(lease.session_id, events[0], error)
                return Appended()
            middle = len(events) // 2
            first = await self._append_acceptable(lease, events[:middle])
            rest = await self._append_acceptable(lease, events[middle:])
            return Appended((*first.events, *rest.events), (*first.message_ids, *rest.message_ids))

    async def _append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        updates = message_updates(events)
        receipts = [
            [strip_nul(message_id) for message_id in updates.get(state, ())]
            for state in (MessageState.DELIVERED, MessageState.READ)
        ]
        async with self._database.autocommit() as connection:
            row = await connection.row(
                "append_inbound",
                lease.session_id,
                lease.epoch,
                lease.incarnation,
                *columns(self._encode, events),
                *receipts,
                *_device_receipts(events),
            )
        if row is None:
            raise epoch_over(lease.session_id, lease.epoch)
        if row["places"] is None:
            raise session_not_found(lease.session_id)
        return Appended(tuple(appended(lease.session_id, events, row)), tuple(row["messages"]))


def _device_receipts(events: Sequence[NewEvent]) -> tuple[list[object], ...]:
    """Return the arguments of zap.note_retry_requests: message ids, kinds, devices, times."""
    receipts = device_receipts(events)
    return (
        [strip_nul(receipt.message_id) for receipt in receipts],
        [receipt.kind for receipt in receipts],
        [strip_nul(receipt.device) for receipt in receipts],
        [receipt.time for receipt in receipts],
    )
