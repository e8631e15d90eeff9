"""The durable log of what came in: appended by the owner of the session alone, in one round trip."""

from collections.abc import Callable, Sequence

import asyncpg

from service.domain.errors import epoch_over, session_not_found
from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.receipts import device_receipts, message_updates
from service.domain.records import MessageState
from service.ports import Appended, Metrics
from service.store.database import Database, storable
from service.store.event_rows import Encode, appended, columns
from service.store.refusals import counts_refusals

#: What is wrong with a row, and will be wrong with it again; not with the database, nor with those beside it.
_REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)

OnRefused = Callable[[str, NewEvent, Exception], None]
"""Hears of an event that Postgres will never take: of which session, which, and why."""


class PostgresEventLog:
    """ports.EventLog on Postgres."""

    def __init__(
        self, database: Database, encode: Encode, on_refused: OnRefused, metrics: Metrics | None = None
    ) -> None:
        self._database = database
        self.metrics = metrics or Metrics()
        self._encode = encode
        self._on_refused = on_refused

    @counts_refusals
    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append what is new, and apply the receipts. Raises LeaseLost or NotFound, and has written nothing then.

        An event that Postgres refuses must not keep back the others: it is left out, alone.
        """
        appended = await self._append_what_can_be(lease, events)
        self.metrics.repeated(len(events) - len(appended.events))
        return appended

    async def _append_what_can_be(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        try:
            return await self._append(lease, events)
        except _REFUSALS as error:
            if len(events) == 1:
                self._on_refused(lease.session_id, events[0], error)
                return Appended()
            middle = len(events) // 2
            first = await self._append_what_can_be(lease, events[:middle])
            rest = await self._append_what_can_be(lease, events[middle:])
            return Appended((*first.events, *rest.events), (*first.message_ids, *rest.message_ids))

    async def _append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        told = message_updates(events)
        receipts = [
            [storable(message_id) for message_id in told.get(state, ())]
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
                *_by_device(events),
            )
        if row is None:
            raise epoch_over(lease.session_id, lease.epoch)
        if row["places"] is None:
            raise session_not_found(lease.session_id)
        return Appended(tuple(appended(lease.session_id, events, row)), tuple(row["messages"]))


def _by_device(events: Sequence[NewEvent]) -> tuple[list[object], ...]:
    """Receipts as zap.note_retry_requests takes them: message ids, kinds, devices, times."""
    receipts = device_receipts(events)
    return (
        [storable(receipt.message_id) for receipt in receipts],
        [receipt.kind for receipt in receipts],
        [storable(receipt.device) for receipt in receipts],
        [receipt.time for receipt in receipts],
    )
