"""Stores messages that callers send: the request first, then its outcome."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from service.domain.caller import Caller
from service.domain.errors import (
    FieldViolation,
    InvalidArgument,
    LeaseLost,
    ResourceExhausted,
    epoch_over,
    session_not_found,
)
from service.domain.lease import Lease
from service.domain.records import (
    BegunMessage,
    MessageFilter,
    MessagePosition,
    MessageState,
    NewMessage,
    OutboundMessage,
    Outcome,
    TypedPayload,
)
from service.domain.send_failures import SendFailure
from service.ports.metrics import Metrics
from service.store import rows
from service.store.database import Database, Record, strip_nul
from service.store.refusals import counts_refusals

MAX_QUEUED = 1000
"""Messages that may wait in one session."""
QUEUE_TTL = timedelta(hours=1)
"""How long a message may wait, for example for the session's connection."""


class PostgresMessages:
    """Implements ports.messages.MessageStore on Postgres, for one caller."""

    def __init__(self, caller: Caller, database: Database, metrics: Metrics | None = None) -> None:
        self._caller = caller
        self._database = database
        self.metrics = metrics or Metrics()

    @counts_refusals("accept")
    async def accept(
        self, lease: Lease, new: NewMessage, secret: bytes, *, begin: bool
    ) -> tuple[OutboundMessage, bool]:
        """Store the message and return it with True; if its key is known, return the earlier one with False."""
        key, content = (lease.session_id, new.request_id), new.content
        fence = (lease.epoch, lease.incarnation)
        async with self._database.transaction() as connection:
            await connection.run("keep_epoch", lease.session_id)
            queued = (content.kind, content.data, secret, begin, MAX_QUEUED)
            stored = (*key, new.to, new.fingerprint, *fence, *queued, new.kind.value)
            row = await connection.row("accept_message", *stored)
            if row is not None:
                return rows.message(row), True
            earlier = await connection.row("get_message", *key)
            if earlier is None and await connection.value("queue_is_full", lease.session_id, MAX_QUEUED):
                raise _queue_full(lease.session_id)
        if earlier is None:
            raise epoch_over(lease.session_id, lease.epoch)
        return _same(earlier, new.fingerprint), False

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """Return the message with this key; None if there is none."""
        async with self._database.autocommit() as connection:
            row = await connection.row("get_message", session_id, request_id)
        return None if row is None else _same(row, fingerprint)

    async def list(
        self, session_id: str, chosen: MessageFilter, after: MessagePosition | None, limit: int
    ) -> Sequence[OutboundMessage]:
        """Return at most `limit` messages after a position, the newest first."""
        states = [state.value for state in chosen.states]
        position = (after.create_time, after.request_id) if after else (None, None)
        async with self._database.autocommit() as connection:
            found = await connection.rows(
                "list_messages", session_id, strip_nul(chosen.chat), states, chosen.since, *position, limit
            )
        return [rows.message(row) for row in found]

    async def cancel(self, session_id: str, request_id: str) -> OutboundMessage | None:
        """Refuse a message that waits, and return it as it is then."""
        detail = rows.detail(SendFailure.CANCELLED, "")
        async with self._database.autocommit() as connection:
            await connection.run("cancel_message", session_id, request_id, detail)
            row = await connection.row("get_message", session_id, request_id)
        return None if row is None else rows.message(row)


class PostgresSendQueue:
    """Implements ports.messages.SendQueueStore on Postgres."""

    def __init__(self, database: Database, metrics: Metrics | None = None) -> None:
        self._database = database
        self.metrics = metrics or Metrics()

    async def begin_next(self, lease: Lease) -> BegunMessage | None:
        """Begin the message that waits longest, and refuse those that have waited for longer than QUEUE_TTL."""
        async with self._database.autocommit() as connection:
            row = await connection.row(
                "begin_next_message", lease.session_id, lease.epoch, lease.incarnation, QUEUE_TTL
            )
        if row is None:
            return None
        content = TypedPayload(row["payload_type"], bytes(row["payload"]))
        return BegunMessage(rows.message(row), content, bytes(row["secret"]))

    async def requeue(self, lease: Lease, request_id: str) -> None:
        """Have a message of this epoch wait again."""
        async with self._database.autocommit() as connection:
            await connection.run("requeue_message", lease.session_id, request_id, lease.epoch)

    async def sent_message_id(self, session_id: str, request_id: str) -> str:
        """Return the id under which whatsmeow has stored the message; empty if it has not."""
        async with self._database.autocommit() as connection:
            found: str | None = await connection.value("sent_message_id", session_id, request_id)
        return found or ""

    async def settle(self, session_id: str, request_id: str, epoch: int, outcome: Outcome) -> OutboundMessage:
        """Store the outcome once, if the epoch has the message. Raises NotFound if the session was deleted."""
        detail = rows.detail(outcome.failure, strip_nul(outcome.detail))
        arguments = (outcome.state.value, outcome.message_id, detail, outcome.sent, epoch, outcome.chat)
        async with self._database.autocommit() as connection:
            row = await connection.row("settle_message", session_id, request_id, *arguments)
            row = row or await connection.row("get_message", session_id, request_id)
        if row is None:
            raise session_not_found(session_id)
        settled = rows.message(row)
        if settled.state is not outcome.state and settled.state in {
            MessageState.ACCEPTED,
            MessageState.OUTCOME_UNKNOWN,
        }:
            # A later epoch has the message, or has settled it as unknown.
            self.metrics.stale_write("settle", LeaseLost.reason)
        return settled

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """Advance messages to the state of a receipt, never backwards; return the ids that were found."""
        ids = [strip_nul(each) for each in message_ids]
        async with self._database.autocommit() as connection:
            found: list[str] = await connection.value("deliver_messages", session_id, ids, state.value)
        return found

    async def sessions_with_queue(self, incarnation: UUID) -> Sequence[str]:
        """Return the sessions of a node in which messages wait."""
        async with self._database.autocommit() as connection:
            return [row["session_id"] for row in await connection.rows("sessions_with_queue", incarnation)]


def _same(row: Record, fingerprint: bytes | None) -> OutboundMessage:
    if fingerprint is not None and bytes(row["fingerprint"]) != fingerprint:
        raise InvalidArgument(
            [FieldViolation("request_id", "was used for a message with another recipient or content")],
            reason="REQUEST_ID_REUSED",
        )
    return rows.message(row)


def _queue_full(session_id: str) -> ResourceExhausted:
    return ResourceExhausted(
        f"{MAX_QUEUED} messages wait in session {session_id!r} already; nothing was stored",
        reason="SEND_QUEUE_FULL",
        metadata={"session_id": session_id, "limit": str(MAX_QUEUED)},
        retry_after=5.0,
    )
