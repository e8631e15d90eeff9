"""Define what is stored of sessions and messages, as values."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.pairing import PairingCode, PairingOutcome
from service.domain.send_failures import SendFailure
from service.domain.session import Condition


@dataclass(frozen=True)
class Account:
    """Describes a WhatsApp account; empty: unknown. `jid`: the device's address, number:device@s.whatsapp.net."""

    jid: str = ""
    lid: str = ""
    push_name: str = ""
    platform: str = ""

    @property
    def phone(self) -> str:
        """Return the number with a leading +, or an empty string without an account."""
        number = self.jid.partition("@")[0].partition(":")[0]
        return f"+{number}" if number else ""


@dataclass(frozen=True)
class Owner:
    """Names the node that owns the session, its epoch and the end of its lease."""

    node: str
    epoch: int
    lease_expire_time: datetime


@dataclass(frozen=True)
class Evidence:
    """Holds when a session was last seen to work."""

    last_connected: datetime | None = None
    last_disconnected: datetime | None = None
    last_inbound: datetime | None = None
    last_acknowledged_send: datetime | None = None


@dataclass(frozen=True)
class StoredCredentials:
    """Describes the device's row in whatsmeow's table. `size`: bytes; 0: there is none."""

    size: int = 0
    create_time: datetime | None = None

    @property
    def present(self) -> bool:
        """Return whether the device's row exists."""
        return self.size > 0


@dataclass(frozen=True)
class Session:
    """Describes a session as Status shows it."""

    session_id: str
    name: str
    user_id: str
    labels: Mapping[str, str]
    proxy_url: str = field(repr=False)
    condition: Condition
    account: Account
    owner: Owner | None
    evidence: Evidence
    credentials: StoredCredentials
    create_time: datetime
    update_time: datetime
    etag: str
    waits_for_start: bool = False
    """The session waits for a start permit or a node (service.domain.session.waits_for_start); the reason in Status."""

    @property
    def active_at(self) -> float:
        """Return the time of the last message in or out, or of the pairing, in seconds of time.time(); 0: never.

        The time of the connection does not count: it is the same for all sessions that an outage disconnected.
        """
        seen = (self.evidence.last_inbound, self.evidence.last_acknowledged_send, self.credentials.create_time)
        return max((moment.timestamp() for moment in seen if moment is not None), default=0.0)


@dataclass(frozen=True)
class Pairing:
    """Describes a session's current pairing, or its last one."""

    code: PairingCode | None
    outcome: PairingOutcome | None
    reason: str = ""


class MessageState(enum.Enum):
    """Names the states of a message; zap.v1.Message.State documents them."""

    ACCEPTED = "ACCEPTED"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"


class MessageKind(enum.Enum):
    """Names what a message does; zap.v1.Message.Kind documents them."""

    MESSAGE = "MESSAGE"
    EDIT = "EDIT"
    REVOKE = "REVOKE"
    PIN = "PIN"


RECEIPT_STATES: Mapping[str, MessageState] = {
    "DELIVERED": MessageState.DELIVERED,
    "READ": MessageState.READ,
    "PLAYED": MessageState.READ,
}
"""Message states by kind of receipt; receipts of other kinds change no state."""


@dataclass(frozen=True)
class TypedPayload:
    """Holds a protobuf message that the core passes on without reading it."""

    kind: str
    """The full name of the message's type, for example zap.v1.SendRequest."""
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class NewMessage:
    """Holds what a caller asks to send. `fingerprint`: a hash of recipient and content, the same in every release."""

    request_id: str
    to: str = field(repr=False)
    content: TypedPayload
    fingerprint: bytes
    kind: MessageKind = MessageKind.MESSAGE


@dataclass(frozen=True)
class Outcome:
    """Says how sending ended: SENT with WhatsApp's id and time, or FAILED or OUTCOME_UNKNOWN with a detail."""

    state: MessageState
    message_id: str = ""
    detail: str = ""
    sent: datetime | None = None
    failure: SendFailure | None = None
    """Kind of a FAILED message; None: NOT_SENT."""
    chat: str = field(default="", repr=False)
    """The chat of a SENT message, as WhatsApp has it."""


@dataclass(frozen=True)
class OutboundMessage:
    """Describes a message that a caller sent. `message_id`: WhatsApp's, empty until SENT; `detail`: why it failed."""

    session_id: str
    request_id: str
    to: str = field(repr=False)
    epoch: int
    """Epoch of the process that was to send it."""
    state: MessageState
    message_id: str
    detail: str
    create_time: datetime
    sent_time: datetime | None
    update_time: datetime
    unreadable_since: datetime | None = None
    """Since when a recipient's device, which has not confirmed the message, requests it again."""
    is_resend_failed: bool = False
    """A resend to such a device failed."""
    failure: SendFailure | None = None
    """Kind of a FAILED message; None, as an earlier release stored it: NOT_SENT."""
    is_queued: bool = False
    """It waits for its turn: certainly nothing was sent."""
    kind: MessageKind = MessageKind.MESSAGE
    chat: str = field(default="", repr=False)
    """The chat as WhatsApp has it: of a person usually the LID. Empty until SENT, and if an earlier release sent it."""


@dataclass(frozen=True)
class MessageFilter:
    """Says which messages of a session to list; empty fields pass all."""

    chat: str = field(default="", repr=False)
    """The recipient of the call, or the chat as WhatsApp has it."""
    states: tuple[MessageState, ...] = ()
    since: datetime | None = None


@dataclass(frozen=True)
class MessagePosition:
    """The place of a message in the list of a session's messages, which begins with the newest."""

    create_time: datetime
    request_id: str


@dataclass(frozen=True)
class BegunMessage:
    """A message that is passed to the session's process now."""

    message: OutboundMessage
    content: TypedPayload
    secret: bytes = field(repr=False)
    """32 bytes that the message carries, by which whatsmeow's copy of it is found."""
