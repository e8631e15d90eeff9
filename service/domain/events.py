"""Define events: their payloads, and what the log adds."""

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
"""`kind` is the zap.v1.Event.Type without its prefix."""


@dataclass(frozen=True)
class NewEvent:
    """Holds an event to be appended."""

    payload: Payload
    time: datetime
    origin: bytes = b""
    """Dedup key, 16 bytes: the log keeps one event per key. Empty: ephemeral, or made by the node."""


@dataclass(frozen=True)
class Event:
    """Holds an event of the log. `id` is unique in the log; `sequence` counts 1, 2, 3, … within the session."""

    id: int
    session_id: str
    sequence: int
    time: datetime
    payload: Payload
    resume_from: LogPosition = START
    """Horizon at the append: a consumer that resumes here gets this event again, and misses none that was in flight."""

    @property
    def size(self) -> int:
        """Return the bytes of an inbound payload; 0 for the service's other events, which are small."""
        return len(self.payload.encoded) if isinstance(self.payload, InboundEvent) else 0
