"""Stores leases. Expiry is by the database's clock."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from service.domain.errors import LeaseLost, NotFound
from service.domain.fleet_counts import FleetCounts
from service.domain.lease import Announcement, Lease, LeaseOwner, Node, Renewal
from service.domain.placement import CLAIM_GRACE_S, Candidate, claim_slots
from service.ports.metrics import Metrics
from service.store.database import Connection, Database
from service.store.refusals import counts_refusals
from service.store.transitions import lock_session


class PostgresLeases:
    """Implements ports.leases.LeaseStore and ports.leases.Directory on Postgres."""

    def __init__(self, database: Database, renewals: Database, metrics: Metrics | None = None) -> None:
        """`renewals` is a separate pool, so that a renewal waits behind no other statement."""
        self._database = database
        self.metrics = metrics or Metrics()
        self._renewals = renewals

    async def claim(
        self, incarnation: UUID, node: str, ttl: float, limit: int, *, pairings: bool, grace_s: float = CLAIM_GRACE_S
    ) -> Sequence[str]:
        """Claim due sessions without an owner, and ids whose discarded devices are to be deleted."""
        # One snapshot of nodes and queue: slots of a queue that has moved meanwhile may be another node's.
        async with self._database.transaction(snapshot=True) as connection:
            numbers = claim_slots(await _candidates(connection), incarnation, limit)
            mine = [row["session_id"] for row in await connection.rows("due_at", numbers, pairings)]
        async with self._database.transaction() as connection:
            found = list(await connection.rows("claim_leases", incarnation, node, ttl, limit, pairings, mine, grace_s))
            if not pairings:
                found += await connection.rows("claim_leftovers", incarnation, node, ttl, limit - len(found))
        return [row["session_id"] for row in found]

    @counts_refusals("begin_epoch")
    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch of a session that this incarnation owns, for a new process."""
        async with self._database.transaction() as connection:
            # A deleted session has no row to lock: no stale write is possible, and only its device is left to delete.
            with suppress(NotFound):
                await lock_session(connection, session_id)
            epoch = await connection.value("begin_epoch", session_id, incarnation, ttl)
        if epoch is None:
            raise LeaseLost(
                f"the lease of session {session_id!r} expired or was taken", metadata={"session_id": session_id}
            )
        return Lease(session_id, epoch, incarnation)

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        """Renew every lease of this incarnation that has not expired, and announce the node."""
        node = announced.node
        renewed: list[Lease] = []
        held_up: list[Lease] = []
        async with self._renewals.autocommit() as connection:
            held = await connection.rows(
                "renew_leases",
                node.incarnation,
                ttl,
                node.name,
                node.address,
                announced.most_sessions,
                announced.is_draining,
                announced.liveness_scope,
            )
        for row in held:
            lease = Lease(row["session_id"], row["epoch"], node.incarnation)
            (renewed if row["is_renewed"] else held_up).append(lease)
        return Renewal(renewed, held_up)

    async def holder(self, session_id: str) -> LeaseOwner | None:
        """Return the current owner of a session."""
        async with self._database.autocommit() as connection:
            row = await connection.row("owner_of", session_id)
        if row is None:
            return None
        return LeaseOwner(Node(row["incarnation"], row["node"], row["address"]), row["epoch"])

    async def targets(self, incarnation: UUID) -> Sequence[Candidate]:
        """Return the other nodes that are not stopping."""
        async with self._database.autocommit() as connection:
            return await _candidates(connection, incarnation)

    async def fleet(self) -> Sequence[Candidate]:
        """Return all nodes; none while one of them is stopping."""
        async with self._database.autocommit() as connection:
            return () if await connection.value("node_is_draining") else await _candidates(connection)

    async def idlest(self, incarnation: UUID, limit: int) -> Sequence[str]:
        """Return the connected sessions of this incarnation, the longest idle first."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("idlest_sessions", incarnation, limit)
        return [row["session_id"] for row in found]

    async def hand_over(self, session_id: str, incarnation: UUID, target: Node, ttl: float) -> bool:
        """Make the lease another node's, unless that node is stopping."""
        async with self._database.autocommit() as connection:
            handed = await connection.value(
                "hand_over_lease", session_id, incarnation, target.incarnation, target.name, ttl
            )
        return handed is not None

    async def release(self, lease: Lease) -> bool:
        """Release a session if this incarnation owns it and no other epoch of it has begun."""
        async with self._database.autocommit() as connection:
            released = await connection.value("release_lease", lease.session_id, lease.incarnation, lease.epoch)
        if released is None:
            self.metrics.stale_write("release", LeaseLost.reason)
        return released is not None

    async def release_orphaned_lease(self, lease: Lease) -> None:
        """Release an orphaned lease, unless another epoch of it has begun."""
        async with self._database.autocommit() as connection:
            await connection.run("release_orphaned_lease", lease.session_id, lease.incarnation, lease.epoch)

    async def release_all(self, incarnation: UUID) -> None:
        """Release the leases of this incarnation on which no epoch was begun, and remove its node."""
        async with self._database.autocommit() as connection:
            await connection.run("release_all_leases", incarnation)
            await connection.run("forget_node", incarnation)

    async def sessions_to_stop(self, incarnation: UUID) -> Sequence[str]:
        """Return the sessions of this incarnation whose process must end: revoked, inactive or deleted."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("sessions_to_stop", incarnation)
        return [row["session_id"] for row in found]

    async def fleet_counts(self, incarnation: UUID, grace_s: float = CLAIM_GRACE_S) -> FleetCounts:
        """Return the counts of active sessions that are not connected."""
        async with self._database.autocommit() as connection:
            found = await connection.row("fleet_counts", incarnation, grace_s)
            leftovers = await connection.value("leftovers_exist")
            counts = FleetCounts(**(found or {}), leftovers=leftovers)
            # The candidates matter only if there is something to claim.
            return replace(counts, candidates=await _candidates(connection)) if counts.has_claims else counts

    async def others_are_awaited(self, seconds: float) -> bool:
        """Return whether a node that is not stopping was alive in the last `seconds`, and is silent now."""
        async with self._database.autocommit() as connection:
            return bool(await connection.value("nodes_are_awaited", seconds))

    async def neighbours(self, incarnation: UUID, scope: str) -> Mapping[UUID, str]:
        """Return the names of the other nodes of this scope that own sessions or have not expired."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("neighbours", incarnation, scope)
        return {row["incarnation"]: row["node"] for row in found}

    async def end_leases(self, dead: UUID) -> int | None:
        """End the leases of a dead node and return how many; None if Postgres still serves it."""
        async with self._database.autocommit() as connection:
            ended: int | None = await connection.value("end_leases_of_dead_node", dead)
        return ended


async def _candidates(connection: Connection, excluded: UUID | None = None) -> Sequence[Candidate]:
    """Return the nodes that are not stopping, without the excluded one."""
    found = await connection.rows("candidates", excluded)
    return [
        Candidate(Node(row["incarnation"], row["node"], row["address"]), row["sessions"], row["most_sessions"])
        for row in found
    ]
