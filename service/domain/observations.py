"""What a session process reports, as values. What must not be lost carries the frame's number."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.domain.disconnect_policy import Cause


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
class Delivered:
    """What a receipt says of messages that this session sent."""

    message_ids: tuple[str, ...]
    kind: str
    """A key of `records.TOLD_BY_RECEIPTS`; RETRY, a device asks for them again; RESEND_FAILED, it is not sent them."""
    device: tuple[str, ...] = ()
    """The addresses of the device that says so: one, or two of the same device, the first one first."""


@dataclass(frozen=True)
class InboundEvent:
    """Something in WhatsApp that consumers are told, and that changes nothing about the session itself.

    `kind` is the bare word of its zap.v1.Event.Type, `encoded` a serialised zap.v1.Event of type and payload alone. The
    core passes both on unread: it needs no type for each kind, and what a later release wrote goes through an
    earlier one whole.
    """

    kind: str
    encoded: bytes = field(repr=False)
    delivered: Delivered | None = None
    """The little of it that the core acts upon; not kept in the log."""


Observation = (
    CodeShown
    | DeviceSaved
    | Connected
    | Disconnected
    | KeepAliveTimeout
    | KeepAliveRestored
    | PushNameChanged
    | Ended
    | InboundEvent
)


@dataclass(frozen=True)
class Observed:
    """An observation, when the process made it, and its frame number (0: need not be confirmed)."""

    observation: Observation
    time: datetime
    number: int = 0
    origin: bytes = b""
    """As in events.NewEvent."""

    @property
    def is_momentary(self) -> bool:
        """It is told, and no harm is done if it is not: whoever is behind leaves it out."""
        return isinstance(self.observation, InboundEvent) and self.number == 0
