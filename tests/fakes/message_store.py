"""service.ports.MessageStore in memory; tests/contract/test_message_store.py holds that it behaves as Postgres does."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.errors import FieldViolation, InvalidArgument, session_not_found
from service.domain.lease import Lease
from service.domain.records import MessageState, OutboundMessage, Outcome
from tests.fakes.session_store import NOW

_ADVANCES = (MessageState.SENT, MessageState.DELIVERED, MessageState.READ)


class FakeMessageStore:
    """The messages in a dictionary. No lease is ever lost."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], OutboundMessage] = {}
        self._fingerprints: dict[tuple[str, str], bytes] = {}

    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        key = (lease.session_id, request_id)
        if key in self.kept:
            return self._same(key, fingerprint), False
        self._fingerprints[key] = fingerprint
        self.kept[key] = OutboundMessage(*key, to, lease.epoch, MessageState.ACCEPTED, "", "", NOW, None, NOW)
        return self.kept[key], True

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        key = (session_id, request_id)
        return self._same(key, fingerprint) if key in self.kept else None

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        key = (session_id, request_id)
        if key not in self.kept:
            raise session_not_found(session_id)
        if self.kept[key].state is MessageState.ACCEPTED:
            self.kept[key] = replace(
                self.kept[key],
                state=outcome.state,
                message_id=outcome.message_id,
                detail=outcome.detail,
                sent_time=outcome.sent,
                failure=outcome.failure,
            )
        return self.kept[key]

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        moved = []
        for key, message in self.kept.items():
            is_meant = key[0] == session_id and message.message_id and message.message_id in message_ids
            if is_meant and message.state in _ADVANCES and _ADVANCES.index(state) > _ADVANCES.index(message.state):
                self.kept[key] = replace(message, state=state)
                moved.append(message.message_id)
        return moved

    def _same(self, key: tuple[str, str], fingerprint: bytes | None) -> OutboundMessage:
        if fingerprint not in (None, self._fingerprints[key]):
            wrong = "was used for a message with another recipient or content"
            raise InvalidArgument([FieldViolation("request_id", wrong)], reason="REQUEST_ID_REUSED")
        return self.kept[key]
