"""What is stored of sessions and messages, as values."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.pairing import PairingCode, PairingOutcome
from service.domain.send_failures import SendFailure
from service.domain.session import Condition


@dataclass(frozen=True)
class Account:
    """A WhatsApp account. `jid` is the device's address (number:device@s.whatsapp.net); empty strings: not known."""

    jid: str = ""
    lid: str = ""
    push_name: str = ""
    platform: str = ""

    @property
    def phone(self) -> str:
        """The number with a leading +, empty if there is no account."""
        number = self.jid.partition("@")[0].partition(":")[0]
        return f"+{number}" if number else ""


@dataclass(frozen=True)
class Owner:
    """The node that holds the session's lease, and until when unless it is renewed."""

    node: str
    epoch: int
    lease_expire_time: datetime


@dataclass(frozen=True)
class Evidence:
    """When things were last seen."""

    last_connected: datetime | None = None
    last_disconnected: datetime | None = None
    last_inbound: datetime | None = None
    last_acknowledged_send: datetime | None = None


@dataclass(frozen=True)
class StoredCredentials:
    """The device's row in whatsmeow's table: `size` in bytes, 0 if there is none."""

    size: int = 0
    create_time: datetime | None = None

    @property
    def present(self) -> bool:
        """There is something to log in with."""
        return self.size > 0


@dataclass(frozen=True)
class Session:
    """One session, as Status shows it."""

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
    waits_for_turn: bool = False
    """See service.domain.session.waits_for_turn; Status gives it as the reason."""

    @property
    def active_at(self) -> float:
        """When anything came in or went out last, or else when it was paired, as time.time() counts; 0: never.

        Not when it was connected: that is the same moment for all that fell together.
        """
        seen = (self.evidence.last_inbound, self.evidence.last_acknowledged_send, self.credentials.create_time)
        return max((moment.timestamp() for moment in seen if moment is not None), default=0.0)


@dataclass(frozen=True)
class Pairing:
    """The pairing that a session is in, or its last one."""

    code: PairingCode | None
    outcome: PairingOutcome | None
    reason: str = ""


class MessageState(enum.Enum):
    """How far a message came; zap.v1.Message.State documents the names."""

    ACCEPTED = "ACCEPTED"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"


RECEIPT_STATES: Mapping[str, MessageState] = {
    "DELIVERED": MessageState.DELIVERED,
    "READ": MessageState.READ,
    "PLAYED": MessageState.READ,
}
"""How far the messages of a receipt came, by its kind; receipts of other kinds do not say."""


@dataclass(frozen=True)
class Outcome:
    """What became of a message: SENT with WhatsApp's id and time, or FAILED or OUTCOME_UNKNOWN with why."""

    state: MessageState
    message_id: str = ""
    detail: str = ""
    sent: datetime | None = None
    failure: SendFailure | None = None
    """Of what is FAILED: the kind; None: NOT_SENT."""


@dataclass(frozen=True)
class OutboundMessage:
    """A message that a caller sent. `message_id` is WhatsApp's, empty until SENT; `detail` says why it failed."""

    session_id: str
    request_id: str
    to: str = field(repr=False)
    epoch: int
    """Of the process that was to send it."""
    state: MessageState
    message_id: str
    detail: str
    create_time: datetime
    sent_time: datetime | None
    update_time: datetime
    unreadable_since: datetime | None = None
    """Since when a device of a recipient asks for it again, without having confirmed it."""
    is_resend_failed: bool = False
    """It could not be sent again to such a device."""
    failure: SendFailure | None = None
    """Of what is FAILED: the kind; None, as an earlier release stored it: NOT_SENT."""
