"""The arithmetic of ownership: who holds a session until when, and whether the settings leave time to let go.

Expiry is judged by the database's clock alone. The holder counts on its own monotonic clock from *before* it asked,
so what it believes always ends before what the database believes. Clocks of two machines are never compared.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Node:
    """A node, since it was started: its name is for people, and two may have the same."""

    incarnation: UUID
    name: str
    address: str
    """host:port at which other nodes call it."""


@dataclass(frozen=True)
class Announcement:
    """What a node says of itself with each renewal."""

    node: Node
    most_sessions: int
    is_draining: bool = False
    """It stops: nothing is handed over to it."""
    liveness_scope: str | None = None
    """Where its liveness socket can be seen (wire/liveness.py); None: nowhere."""


@dataclass(frozen=True)
class LeaseOwner:
    """Who owns a session at present, and under which epoch."""

    node: Node
    epoch: int


@dataclass(frozen=True)
class Lease:
    """A session, the number of this start of it, and the node incarnation that may act for it."""

    session_id: str
    epoch: int
    incarnation: UUID


_LONGEST_ID = 39
"""Characters of a session's id that fit into an application_name (63) beside an epoch."""


def backends_of(session_id: str) -> str:
    """What the application_name of each connection to Postgres by a session's processes begins with.

    The epoch follows, and is what counts: a long id is cut, and told by its digest.
    """
    if len(session_id) > _LONGEST_ID:
        session_id = f"{session_id[:22]}~{hashlib.sha256(session_id.encode()).hexdigest()[:16]}"
    return f"zap/{session_id}/"


@dataclass(frozen=True)
class Renewal:
    """What became of a node's leases by one renewal. Those in neither list are not its own any more."""

    renewed: Sequence[Lease]
    """Its own for another ttl."""
    held_up: Sequence[Lease] = ()
    """Its own until they expire, as before: somebody held their rows, and the renewal waits for nobody."""


@dataclass(frozen=True)
class LeaseTimes:
    """The times around a lease, in seconds."""

    ttl: float
    """How long a lease lasts from a renewal."""

    @property
    def renew_every(self) -> float:
        """From one renewal to the next."""
        return self.ttl / 5

    @property
    def renew_retry(self) -> float:
        """From a renewal that failed to the next one: nodes hear of each other again soon after an outage."""
        return min(0.5, self.renew_every)

    @property
    def renew_timeout(self) -> float:
        """How long one renewal may take before it is given up."""
        return self.ttl * 0.15

    @property
    def margin(self) -> float:
        """What a holder gives up of its lease, so that its processes are dead before it ends."""
        return max(0.1 * self.ttl, 0.3)

    @property
    def kill(self) -> float:
        """How long it takes to kill a process and see it dead."""
        return 0.5

    @property
    def slack(self) -> float:
        """What is left after a renewal that failed once and succeeded late."""
        needed = self.margin + self.renew_every + 2 * self.renew_timeout + self.kill
        # To the microsecond, as the settings are meant: no sum of tenths is quite what it says.
        return round(self.ttl - needed, 6)

    def safe_until(self, sent: float) -> float:
        """Until when, on the monotonic clock on which a confirmed renewal was `sent`, its holder may go on."""
        return sent + self.ttl - self.margin

    def budget(self) -> str:
        """The sum, for people."""
        return (
            f"ttl {self.ttl:g} s = margin {self.margin:g} + renewal every {self.renew_every:g}"
            f" + two renewals' timeouts {2 * self.renew_timeout:g} + kill {self.kill:g}"
            f" + slack {self.slack:g}"
        )

    def check(self) -> None:
        """Raise ValueError, with the budget, if a single late renewal would already cost the lease."""
        if self.slack < 0:
            raise ValueError(f"a lease of {self.ttl:g} s leaves no slack: {self.budget()}")
