"""Describe the fleet to the reconciler: which active sessions are not connected, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.placement import Candidate


@dataclass(frozen=True)
class FleetCounts:
    """Counts the active sessions of all nodes that are not connected.

    A session is in at most one of `due`, `silent` and `waiting`. A pairing is counted in `pairings` only.
    """

    due: int = 0
    """Unowned sessions to be claimed."""
    late: int = 0
    """Those of `due` that any node may claim, because the node that has their slot did not in time."""
    silent: int = 0
    """Sessions of a node without a renewal for half a lease: to be claimed when the lease expires."""
    waiting: int = 0
    """Sessions whose owner waits for a start permit."""
    pairings: int = 0
    """Unowned pairings to be claimed."""
    late_pairings: int = 0
    """Those of `pairings` that any node may claim."""
    leftovers: bool = False
    """An unowned session, perhaps a deleted one, has a device to delete."""
    next_due: float | None = None
    """Seconds until the next session becomes due, or late; None: none will."""
    candidates: Sequence[Candidate] = ()
    """Live nodes that are not stopping, with this one; empty while there is nothing to claim."""

    @property
    def away(self) -> int:
        """Return how many sessions wait for a node or a permit, and not because of a failure of their own."""
        return self.due + self.silent + self.waiting

    @property
    def has_claims(self) -> bool:
        """Return whether some node has something to claim."""
        return bool(self.due or self.pairings)
