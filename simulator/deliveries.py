"""Records the outcome of each message for a linked device."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Delivery:
    """One message stanza for one device."""

    id: str
    #: the author's device, by hidden id
    sender: str
    #: the group, or the author
    chat: str
    #: how it is encrypted: pkmsg begins a session, msg goes on with one, skmsg is for a whole group
    kinds: list[str]
    #: how many retries it answers: 0 unless the device had asked for the message again
    retry: int
    queued_at: float = field(default_factory=time.time)
    #: times that it was written to a connection of the device
    delivered: int = 0
    acknowledged_at: float | None = None
    #: "receipt", "ack", "retry" (the device asks for the message again), or empty while it waits
    acknowledged_by: str = ""

    def acknowledge(self, how: str) -> None:
        """Record that the device has confirmed it."""
        self.acknowledged_at, self.acknowledged_by = time.time(), how
