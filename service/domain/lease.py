"""Define leases and compute their times.

The database's clock alone decides when a lease expires. The owner counts from *before* it sent the renewal, on its
monotonic clock, so that its own view of the lease ends first. Clocks of two machines are never compared.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Node:
    """Identifies one run of a node. Names are for people; two nodes may share one."""

    incarnation: UUID
    name: str
    address: str
    """host:port at which other nodes call this one."""


@dataclass(frozen=True)
class Announcement:
    """Describes a node to the others; written with each renewal."""

    node: Node
    most_sessions: int
    is_draining: bool = False
    """The node is stopping: nothing is handed over to it."""
    liveness_scope: str | None = None
    """Where the node's liveness socket can be seen (wire/liveness.py); None: nowhere."""


@dataclass(frozen=True)
class LeaseOwner:
    """Names the owner of a session and its epoch."""

    node: Node
    epoch: int


@dataclass(frozen=True)
class Lease:
    """Allows one incarnation of a node to act for a session in one epoch (one start of its process)."""

    session_id: str
    epoch: int
    incarnation: UUID


_MAX_ID_CHARACTERS = 39
"""Longest session id, in characters, that fits into an application_name (63) beside an epoch."""


def backends_of(session_id: str) -> str:
    """Return the prefix of the application_name of every Postgres connection of a session's processes.

    The epoch follows the prefix. A long id is cut and completed by its digest.
    """
    if len(session_id) > _MAX_ID_CHARACTERS:
        session_id = f"{session_id[:22]}~{hashlib.sha256(session_id.encode()).hexdigest()[:16]}"
    return f"zap/{session_id}/"


@dataclass(frozen=True)
class Renewal:
    """Holds the result of one renewal. The node lost every lease that is in neither list."""

    renewed: Sequence[Lease]
    """Leases that last for another ttl."""
    held_up: Sequence[Lease] = ()
    """Leases with a locked row, which the renewal skipped: they expire as before."""


@dataclass(frozen=True)
class LeaseTimes:
    """Derives the times around a lease from its ttl, in seconds."""

    ttl: float
    """Duration of a lease from its renewal."""

    @property
    def renew_every(self) -> float:
        """Return the interval between renewals."""
        return self.ttl / 5

    @property
    def renew_retry(self) -> float:
        """Return the wait after a failed renewal; short, so that nodes see each other soon after an outage."""
        return min(0.5, self.renew_every)

    @property
    def renew_timeout(self) -> float:
        """Return the timeout of one renewal."""
        return self.ttl * 0.15

    @property
    def margin(self) -> float:
        """Return how long before the end of its lease an owner stops acting, so that its processes are dead by then."""
        return max(0.1 * self.ttl, 0.3)

    @property
    def kill(self) -> float:
        """Return the time to kill a process and see it dead."""
        return 0.5

    @property
    def slack(self) -> float:
        """Return the time left after a renewal that failed once and then succeeded late."""
        needed = self.margin + self.renew_every + 2 * self.renew_timeout + self.kill
        # Rounded, because a sum of decimal fractions is inexact in binary.
        return round(self.ttl - needed, 6)

    def safe_until(self, sent: float) -> float:
        """Return until when the owner may act, on the monotonic clock by which the confirmed renewal was `sent`."""
        return sent + self.ttl - self.margin

    def budget(self) -> str:
        """Return the sum of the times as text."""
        return (
            f"ttl {self.ttl:g} s = margin {self.margin:g} + renewal every {self.renew_every:g}"
            f" + two renewals' timeouts {2 * self.renew_timeout:g} + kill {self.kill:g}"
            f" + slack {self.slack:g}"
        )

    def check(self) -> None:
        """Raise ValueError, with the budget, if one failed renewal could cost the lease."""
        if self.slack < 0:
            raise ValueError(f"a lease of {self.ttl:g} s leaves no slack: {self.budget()}")
