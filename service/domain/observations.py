"""Define what a session process reports, as values."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.domain.disconnect_policy import Cause


@dataclass(frozen=True)
class CodeShown:
    """The library offers a new code to scan."""

    text: str = field(repr=False)
    position: int
    lifetime: timedelta


@dataclass(frozen=True)
class DeviceSaved:
    """A scan was accepted; the device is in the database, but has not logged in yet."""

    jid: str
    lid: str
    platform: str


@dataclass(frozen=True)
class Connected:
    """The device logged in; also after a reconnection by the library."""

    jid: str
    lid: str
    push_name: str


@dataclass(frozen=True)
class Disconnected:
    """The connection was lost; the library reconnects."""


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
    """The process is dead, or about to exit. Always its last observation."""

    cause: Cause
    detail: str = ""
    until: datetime | None = None


@dataclass(frozen=True)
class DeliveryReport:
    """Holds a receipt for messages that this session sent."""

    message_ids: tuple[str, ...]
    kind: str
    """A key of `records.RECEIPT_STATES`; RETRY: a device requests them again; RESEND_FAILED: that request failed."""
    device: tuple[str, ...] = ()
    """The one or two addresses of the device that sent the receipt, the primary one first."""


@dataclass(frozen=True)
class InboundEvent:
    """Reports something from WhatsApp to consumers, without effect on the session's state.

    `kind` is the zap.v1.Event.Type without its prefix, `encoded` a serialised zap.v1.Event with type and payload only.
    The core does not parse them: it needs no class for each kind, and loses no field that a later release added.
    """

    kind: str
    encoded: bytes = field(repr=False)
    delivered: DeliveryReport | None = None
    """The receipt, which the core acts upon; not stored in the log."""


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
    """Holds an observation and its time. `number`: of its frame, to be confirmed; 0: not durable."""

    observation: Observation
    time: datetime
    number: int = 0
    origin: bytes = b""
    """Dedup key, as in events.NewEvent."""

    @property
    def is_ephemeral(self) -> bool:
        """Return whether this is an ephemeral event, which may be dropped under backpressure."""
        return isinstance(self.observation, InboundEvent) and self.number == 0
