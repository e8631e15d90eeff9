"""Declares the store of messages that callers send."""

from collections.abc import Sequence
from typing import Protocol

from service.domain.lease import Lease
from service.domain.records import MessageState, OutboundMessage, Outcome


class MessageStore(Protocol):
    """Stores the messages that one caller sends."""

    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        """Record the intent to send; return True with a new message, False with an earlier one. Fenced.

        Raises InvalidArgument (REQUEST_ID_REUSED) if the earlier one has another fingerprint.
        """

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """Return the message of this key, if any. Raises InvalidArgument (REQUEST_ID_REUSED) as `accept` does."""

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        """Record a message's outcome; a settled message stays as it is. Raises NotFound if its session was deleted."""

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """Advance messages to the state in a receipt, never back; return the ids that were found."""
