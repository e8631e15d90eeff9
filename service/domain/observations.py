"""What a session process reports, as values. What must not be lost carries the frame's number."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.domain.disconnects import Cause


@dataclass(frozen=True)
class CodeShown:
    """A code to scan; shown by the library from now on."""

    text: str = field(repr=False)
    position: int
    lifetime: timedelta


@dataclass(frozen=True)
class DeviceSaved:
    """A scan was accepted; the device is in the database and has not logged in yet."""

    jid: str
    lid: str
    platform: str


@dataclass(frozen=True)
class Connected:
    """Logged in; also after a reconnection by the library itself."""

    jid: str
    lid: str
    push_name: str


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone; the library tries again by itself."""


@dataclass(frozen=True)
class KeepAliveTimeout:
    """WhatsApp does not answer keepalives."""

    errors: int


@dataclass(frozen=True)
class KeepAliveRestored:
    """WhatsApp answers keepalives again."""


@dataclass(frozen=True)
class PushNameChanged:
    """The account's own push name became known or changed."""

    push_name: str


@dataclass(frozen=True)
class Ended:
    """The last observation of every process: it is dead, or of no more use and about to be."""

    cause: Cause
    detail: str = ""
    until: datetime | None = None


@dataclass(frozen=True)
class MessageReceived:
    """An inbound message. Payload fields as in zap.v1.MessageReceived."""

    message_id: str
    chat: str = field(repr=False)
    sender: str = field(repr=False)
    sender_alternative: str = field(repr=False)
    push_name: str = field(repr=False)
    from_me: bool
    is_group: bool
    text: str = field(repr=False)
    raw: bytes = field(repr=False)


@dataclass(frozen=True)
class ReceiptReceived:
    """A recipient's device told what became of messages. `kind`: DELIVERED, READ, PLAYED or empty."""

    message_ids: tuple[str, ...]
    kind: str
    chat: str = field(repr=False)
    sender: str = field(repr=False)


Observation = (
    CodeShown
    | DeviceSaved
    | Connected
    | Disconnected
    | KeepAliveTimeout
    | KeepAliveRestored
    | PushNameChanged
    | Ended
    | MessageReceived
    | ReceiptReceived
)


@dataclass(frozen=True)
class Observed:
    """An observation, when the process made it, and its frame number (0: need not be confirmed)."""

    observation: Observation
    time: datetime
    number: int = 0
