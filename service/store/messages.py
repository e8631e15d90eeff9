"""Stores messages that callers send: the request first, then its outcome."""

from collections.abc import Sequence

from service.domain.caller import Caller
from service.domain.errors import FieldViolation, InvalidArgument, LeaseLost, epoch_over, session_not_found
from service.domain.lease import Lease
from service.domain.records import MessageState, OutboundMessage, Outcome
from service.ports.metrics import Metrics
from service.store import rows
from service.store.database import Database, Record, strip_nul
from service.store.refusals import counts_refusals


class PostgresMessages:
    """Implements ports.messages.MessageStore on Postgres, for one caller."""

    def __init__(self, caller: Caller, database: Database, metrics: Metrics | None = None) -> None:
        self._caller = caller
        self._database = database
        self.metrics = metrics or Metrics()

    @counts_refusals("accept")
    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        """Store the message and return it with True; if its key is known, return the earlier one with False."""
        async with self._database.transaction() as connection:
            await connection.run("keep_epoch", lease.session_id)
            row = await connection.row(
                "accept_message", lease.session_id, request_id, to, fingerprint, lease.epoch, lease.incarnation
            )
            if row is not None:
                return rows.message(row), True
            earlier = await connection.row("get_message", lease.session_id, request_id)
        if earlier is None:
            raise epoch_over(lease.session_id, lease.epoch)
        return _same(earlier, fingerprint), False

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """Return the message with this key; None if there is none."""
        async with self._database.autocommit() as connection:
            row = await connection.row("get_message", session_id, request_id)
        return None if row is None else _same(row, fingerprint)

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        """Store the outcome once. Raises NotFound if the session, and its messages, were deleted meanwhile."""
        detail = rows.detail(outcome.failure, strip_nul(outcome.detail))
        arguments = (outcome.state.value, outcome.message_id, detail, outcome.sent)
        async with self._database.autocommit() as connection:
            row = await connection.row("settle_message", session_id, request_id, *arguments)
            row = row or await connection.row("get_message", session_id, request_id)
        if row is None:
            raise session_not_found(session_id)
        settled = rows.message(row)
        if settled.state is MessageState.OUTCOME_UNKNOWN and outcome.state is not MessageState.OUTCOME_UNKNOWN:
            # A later epoch has settled the message as unknown.
            self.metrics.stale_write("settle", LeaseLost.reason)
        return settled

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """Advance messages to the state of a receipt, never backwards; return the ids that were found."""
        ids = [strip_nul(each) for each in message_ids]
        async with self._database.autocommit() as connection:
            found: list[str] = await connection.value("deliver_messages", session_id, ids, state.value)
        return found


def _same(row: Record, fingerprint: bytes | None) -> OutboundMessage:
    if fingerprint is not None and bytes(row["fingerprint"]) != fingerprint:
        raise InvalidArgument(
            [FieldViolation("request_id", "was used for a message with another recipient or content")],
            reason="REQUEST_ID_REUSED",
        )
    return rows.message(row)
