"""The stores of messages in memory; tests/contract/test_message_store.py holds that they behave as Postgres does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from service.domain.errors import FieldViolation, InvalidArgument, ResourceExhausted, session_not_found
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
from service.domain.send_failures import SendFailure
from service.store.messages import MAX_QUEUED
from tests.fakes.session_store import NOW

_ADVANCES = (MessageState.SENT, MessageState.DELIVERED, MessageState.READ)


@dataclass(frozen=True)
class _Stored:
    new: NewMessage
    secret: bytes


def _place(message: OutboundMessage) -> tuple[datetime, str]:
    return message.create_time, message.request_id


class FakeMessageStore:
    """The messages in a dictionary. No lease is ever lost."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], OutboundMessage] = {}
        self.in_library: dict[tuple[str, str], str] = {}
        """WhatsApp's ids of messages that whatsmeow has stored, and whose outcome is not known."""
        self._stored: dict[tuple[str, str], _Stored] = {}

    async def accept(
        self, lease: Lease, new: NewMessage, secret: bytes, *, begin: bool
    ) -> tuple[OutboundMessage, bool]:
        key = (lease.session_id, new.request_id)
        if key in self.kept:
            return self._same(key, new.fingerprint), False
        waiting = self._waiting(lease.session_id)
        if len(waiting) >= MAX_QUEUED:
            raise ResourceExhausted("the queue is full", reason="SEND_QUEUE_FULL")
        self._stored[key] = _Stored(new, secret)
        is_queued = bool(waiting) or not begin
        self.kept[key] = OutboundMessage(
            *key, new.to, lease.epoch, MessageState.ACCEPTED, "", "", NOW, None, NOW, is_queued=is_queued, kind=new.kind
        )
        return self.kept[key], True

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        key = (session_id, request_id)
        return self._same(key, fingerprint) if key in self.kept else None

    async def list(
        self, session_id: str, chosen: MessageFilter, after: MessagePosition | None, limit: int
    ) -> Sequence[OutboundMessage]:
        found = [
            message
            for message in self.kept.values()
            if message.session_id == session_id
            and chosen.chat in {"", message.to, message.chat}
            and (not chosen.states or message.state in chosen.states)
            and (chosen.since is None or message.create_time >= chosen.since)
            and (after is None or _place(message) < (after.create_time, after.request_id))
        ]
        return sorted(found, key=_place, reverse=True)[:limit]

    async def cancel(self, session_id: str, request_id: str) -> OutboundMessage | None:
        key = (session_id, request_id)
        if key in self.kept and self.kept[key].is_queued:
            self.kept[key] = replace(
                self.kept[key], state=MessageState.FAILED, failure=SendFailure.CANCELLED, is_queued=False
            )
        return self.kept.get(key)

    async def begin_next(self, lease: Lease) -> BegunMessage | None:
        for key in self._waiting(lease.session_id):
            self.kept[key] = replace(self.kept[key], is_queued=False, epoch=lease.epoch)
            stored = self._stored[key]
            return BegunMessage(self.kept[key], stored.new.content, stored.secret)
        return None

    async def requeue(self, lease: Lease, request_id: str) -> None:
        key = (lease.session_id, request_id)
        message = self.kept[key]
        if message.state is MessageState.ACCEPTED and message.epoch == lease.epoch:
            self.kept[key] = replace(message, is_queued=True)

    async def sent_message_id(self, session_id: str, request_id: str) -> str:
        return self.in_library.get((session_id, request_id), "")

    async def sessions_with_queue(self, incarnation: UUID) -> Sequence[str]:
        return sorted({key[0] for key, message in self.kept.items() if message.is_queued})

    async def settle(self, session_id: str, request_id: str, epoch: int, outcome: Outcome) -> OutboundMessage:
        key = (session_id, request_id)
        if key not in self.kept:
            raise session_not_found(session_id)
        message = self.kept[key]
        if message.state is MessageState.ACCEPTED and not message.is_queued and message.epoch == epoch:
            self.kept[key] = replace(
                self.kept[key],
                state=outcome.state,
                message_id=outcome.message_id,
                detail=outcome.detail,
                sent_time=outcome.sent,
                failure=outcome.failure,
                is_queued=False,
                chat=outcome.chat,
            )
        return self.kept[key]

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        moved = []
        for key, message in self.kept.items():
            is_meant = key[0] == session_id and message.message_id and message.message_id in message_ids
            now = MessageState.SENT if message.state is MessageState.OUTCOME_UNKNOWN else message.state
            if is_meant and now in _ADVANCES and _ADVANCES.index(state) > _ADVANCES.index(now):
                self.kept[key] = replace(message, state=state)
                moved.append(message.message_id)
        return moved

    def _waiting(self, session_id: str) -> Sequence[tuple[str, str]]:
        return [key for key, message in self.kept.items() if key[0] == session_id and message.is_queued]

    def _same(self, key: tuple[str, str], fingerprint: bytes | None) -> OutboundMessage:
        if fingerprint not in (None, self._stored[key].new.fingerprint):
            wrong = "was used for a message with another recipient or content"
            raise InvalidArgument([FieldViolation("request_id", wrong)], reason="REQUEST_ID_REUSED")
        return self.kept[key]
