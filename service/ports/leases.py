"""Declares the stores of leases and nodes."""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from service.domain.fleet_counts import FleetCounts
from service.domain.lease import Announcement, Lease, LeaseOwner, Node, Renewal
from service.domain.placement import CLAIM_GRACE_S, Candidate


class LeaseStore(Protocol):
    """Writes the leases of an owner. Expiry is by the database's clock."""

    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch of a session that this incarnation owns, for a new process. Raises LeaseLost."""

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        """Renew this incarnation's unexpired leases and announce the node, in one statement.

        Never waits for a row lock: a locked lease is left for the next renewal.
        """

    async def hand_over(self, session_id: str, incarnation: UUID, target: Node, ttl: float) -> bool:
        """Transfer the lease to the target. Only while no process of the session runs.

        False: nothing was changed, because the lease is lost, or the target is stopping or not live.
        """

    async def release(self, lease: Lease) -> bool:
        """Release a lease. Its epoch is 0 if this incarnation began none.

        False: nothing was changed, because the lease is lost or a newer epoch has begun.
        """

    async def release_orphaned_lease(self, lease: Lease) -> None:
        """Release a lease for which this node runs nothing, unless a newer epoch has begun."""


class Directory(Protocol):
    """Finds nodes, owners and sessions to claim. Expiry is by the database's clock.

    A node is live until its last announcement expires.
    """

    async def claim(
        self, incarnation: UUID, node: str, ttl: float, limit: int, *, pairings: bool, grace_s: float = CLAIM_GRACE_S
    ) -> Sequence[str]:
        """Claim at most `limit` unowned sessions that are active and due: only pairings, or only others.

        Sessions just activated come first, in that order; then the most recently active. For `grace_s` seconds a
        session in another node's claim slot (domain.placement) is left to that node.
        """

    async def release_all(self, incarnation: UUID) -> None:
        """Release this incarnation's leases on which no epoch was begun, and remove the node."""

    async def sessions_to_stop(self, incarnation: UUID) -> Sequence[str]:
        """Return owned sessions whose process must end: inactive, deleted, or with a revoked epoch.

        An epoch stays revoked even if its session is activated again; a restart revokes it as well.
        """

    async def fleet_counts(self, incarnation: UUID, grace_s: float = CLAIM_GRACE_S) -> FleetCounts:
        """Count the active sessions of all nodes that are not connected. `grace_s`: see `claim`."""

    async def others_are_awaited(self, seconds: float) -> bool:
        """Return whether a node that has not stopped was live within the last `seconds`, but is not live now."""

    async def holder(self, session_id: str) -> LeaseOwner | None:
        """Return the owner of a session; None if there is none, or its node never announced itself."""

    async def targets(self, incarnation: UUID) -> Sequence[Candidate]:
        """Return the live nodes, other than this one, that are not stopping."""

    async def fleet(self) -> Sequence[Candidate]:
        """Return all live nodes; none while one of them stops."""

    async def idlest(self, incarnation: UUID, limit: int) -> Sequence[str]:
        """Return connected sessions of this incarnation, the longest idle first."""

    async def neighbours(self, incarnation: UUID, scope: str) -> Mapping[UUID, str]:
        """Return the names of the other nodes of this scope that own sessions or count as living."""

    async def end_leases(self, dead: UUID) -> int | None:
        """End the leases of a dead node and return their number; None if Postgres still serves the node."""
