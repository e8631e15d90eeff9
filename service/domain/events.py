"""What consumers are told: typed payloads, and the place each event has in its session's log."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from service.domain.log_positions import START, LogPosition
from service.domain.observations import InboundEvent
from service.domain.pairing import PairingOutcome
from service.domain.session import State


@dataclass(frozen=True)
class StateChanged:
    """The session's state changed; `reason` is a code of `service.domain.reasons`, or empty."""

    kind: ClassVar = "STATE_CHANGED"

    before: State
    after: State
    reason: str


@dataclass(frozen=True)
class PairingProgress:
    """A code became available (`expire_time`, `position`), or the pairing ended (`outcome`, `reason`)."""

    kind: ClassVar = "PAIRING"

    expire_time: datetime | None = None
    position: int = 0
    outcome: PairingOutcome | None = None
    reason: str = ""


Payload = StateChanged | PairingProgress | InboundEvent
"""`kind` is the bare word of its zap.v1.Event.Type."""


@dataclass(frozen=True)
class NewEvent:
    """An event on its way to the log."""

    payload: Payload
    time: datetime
    origin: bytes = b""
    """What it came from, 16 bytes: two of one origin are one event. Empty: of the moment, or made by the node."""


@dataclass(frozen=True)
class Event:
    """An event in the log: `id` unique among all, `sequence` 1, 2, 3, … within its session."""

    id: int
    session_id: str
    sequence: int
    time: datetime
    payload: Payload
    resume_from: LogPosition = START
    """The horizon when it was appended: who resumes there gets it again, and misses nothing that was in flight."""

    @property
    def size(self) -> int:
        """Bytes of its payload, if that came from WhatsApp; what the service says itself is small."""
        return len(self.payload.encoded) if isinstance(self.payload, InboundEvent) else 0
