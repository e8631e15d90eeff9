"""Declares the stores of messages that callers send."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from service.domain.lease import Lease
from service.domain.records import (
    BegunMessage,
    MessageFilter,
    MessagePosition,
    MessageState,
    NewMessage,
    OutboundMessage,
    Outcome,
)


class MessageStore(Protocol):
    """Stores the messages that one caller sends."""

    async def accept(
        self, lease: Lease, new: NewMessage, secret: bytes, *, begin: bool
    ) -> tuple[OutboundMessage, bool]:
        """Record the intent to send; return True with a new message, False with an earlier one. Fenced.

        `begin`: the message is begun at once, unless others wait (`is_queued`). Raises InvalidArgument
        (REQUEST_ID_REUSED) if the earlier one has another fingerprint, and ResourceExhausted (SEND_QUEUE_FULL).
        """

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """Return the message of this key, if any. Raises InvalidArgument (REQUEST_ID_REUSED) as `accept` does."""

    async def list(
        self, session_id: str, chosen: MessageFilter, after: MessagePosition | None, limit: int
    ) -> Sequence[OutboundMessage]:
        """Return at most `limit` messages after a position, the newest first."""

    async def cancel(self, session_id: str, request_id: str) -> OutboundMessage | None:
        """Refuse a message that waits (CANCELLED). Return the message as it is then; None if there is none."""


class SendQueueStore(Protocol):
    """Stores how far messages have come, whichever caller sends them, for the session's owner."""

    async def begin_next(self, lease: Lease) -> BegunMessage | None:
        """Begin the message that waits longest. None: none waits, or the epoch is over."""

    async def requeue(self, lease: Lease, request_id: str) -> None:
        """Have a message wait again that was begun in this epoch and certainly did not leave."""

    async def sent_message_id(self, session_id: str, request_id: str) -> str:
        """Return WhatsApp's id of a message whose outcome is not known; empty: nothing of it has left."""

    async def settle(self, session_id: str, request_id: str, epoch: int, outcome: Outcome) -> OutboundMessage:
        """Record the outcome of a message that was begun in this epoch, and return the message as it is then.

        A settled message, and one that waits again, stays as it is. Raises NotFound if its session was deleted.
        """

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """Advance messages to the state in a receipt, never back; return the ids that were found."""

    async def sessions_with_queue(self, incarnation: UUID) -> Sequence[str]:
        """Return the sessions of a node in which messages wait."""
