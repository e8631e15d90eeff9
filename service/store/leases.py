"""Leases: who may act for a session, by the database's clock."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from service.domain.errors import LeaseLost, NotFound
from service.domain.lease import Announcement, Lease, LeaseOwner, Node, Renewal
from service.domain.placement import CLAIM_GRACE_S, Candidate, claim_slots
from service.domain.survey import Survey
from service.ports import Metrics
from service.store.database import Connection, Database
from service.store.refusals import counts_refusals
from service.store.transitions import lock_session


class PostgresLeases:
    """ports.LeaseStore and ports.Directory on Postgres."""

    def __init__(self, database: Database, renewals: Database, metrics: Metrics | None = None) -> None:
        """`renewals` is a connection of its own: nothing can queue in front of a renewal."""
        self._database = database
        self.metrics = metrics or Metrics()
        self._renewals = renewals

    async def claim(
        self, incarnation: UUID, node: str, ttl: float, limit: int, *, pairings: bool, patience: float = CLAIM_GRACE_S
    ) -> Sequence[str]:
        """Take sessions that are due, nobody's and ours to take, and ids with nothing but devices to be deleted."""
        # Nodes and queue as they were at one moment: places in a queue that has moved meanwhile can be another node's.
        async with self._database.transaction(snapshot=True) as connection:
            numbers = claim_slots(await _candidates(connection), incarnation, limit)
            mine = [row["session_id"] for row in await connection.rows("due_at", numbers, pairings)]
        async with self._database.transaction() as connection:
            found = list(await connection.rows("claim_leases", incarnation, node, ttl, limit, pairings, mine, patience))
            if not pairings:
                found += await connection.rows("claim_leftovers", incarnation, node, ttl, limit - len(found))
        return [row["session_id"] for row in found]

    @counts_refusals
    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch of a session this incarnation holds, for a new process."""
        async with self._database.transaction() as connection:
            # Without a row, the session was deleted: nothing stale can be written, only its device is left to delete.
            with suppress(NotFound):
                await lock_session(connection, session_id)
            epoch = await connection.value("begin_epoch", session_id, incarnation, ttl)
        if epoch is None:
            raise LeaseLost(
                f"the lease of session {session_id!r} ran out or was taken", metadata={"session_id": session_id}
            )
        return Lease(session_id, epoch, incarnation)

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        """Renew every lease of this incarnation that has not expired, and say where it is called and what it takes."""
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
        """Who owns a session now."""
        async with self._database.autocommit() as connection:
            row = await connection.row("owner_of", session_id)
        return (
            LeaseOwner(Node(row["incarnation"], row["node"], row["address"]), row["epoch"]) if row is not None else None
        )

    async def targets(self, incarnation: UUID) -> Sequence[Candidate]:
        """Nodes that go on, other than this one."""
        async with self._database.autocommit() as connection:
            return await _candidates(connection, incarnation)

    async def fleet(self) -> Sequence[Candidate]:
        """Nodes that share sessions: all that go on; none while one of them stops."""
        async with self._database.autocommit() as connection:
            return () if await connection.value("node_is_draining") else await _candidates(connection)

    async def idlest(self, incarnation: UUID, limit: int) -> Sequence[str]:
        """Sessions of this incarnation that are connected, those that have been idle for longest first."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("idlest_sessions", incarnation, limit)
        return [row["session_id"] for row in found]

    async def hand_over(self, session_id: str, incarnation: UUID, target: Node, ttl: float) -> bool:
        """Make the lease another node's, if that goes on."""
        async with self._database.autocommit() as connection:
            handed = await connection.value(
                "hand_over_lease", session_id, incarnation, target.incarnation, target.name, ttl
            )
        return handed is not None

    async def release(self, lease: Lease) -> bool:
        """Give a session up, if it is this incarnation's, and no other epoch of it has begun."""
        async with self._database.autocommit() as connection:
            released = await connection.value("release_lease", lease.session_id, lease.incarnation, lease.epoch)
        if released is None:
            self.metrics.stale_write("release", LeaseLost.reason)
        return released is not None

    async def release_orphaned_lease(self, lease: Lease) -> None:
        """Give up a lease that nobody here works for, unless another epoch of it has begun."""
        async with self._database.autocommit() as connection:
            await connection.run("release_stray_lease", lease.session_id, lease.incarnation, lease.epoch)

    async def release_all(self, incarnation: UUID) -> None:
        """Give up what this incarnation has claimed, or been given, and not begun; and be called no more."""
        async with self._database.autocommit() as connection:
            await connection.run("release_all_leases", incarnation)
            await connection.run("forget_node", incarnation)

    async def unwanted(self, incarnation: UUID) -> Sequence[str]:
        """Sessions this incarnation holds that nobody wants any more, or that were deleted."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("unwanted_leases", incarnation)
        return [row["session_id"] for row in found]

    async def survey(self, incarnation: UUID, patience: float = CLAIM_GRACE_S) -> Survey:
        """How things stand with all that is wanted and not connected."""
        async with self._database.autocommit() as connection:
            found = await connection.row("survey_sessions", incarnation, patience)
            leftovers = await connection.value("leftovers_exist")
            survey = Survey(**(found or {}), leftovers=leftovers)
            # Who takes them concerns nobody while there is nothing to take.
            return replace(survey, candidates=await _candidates(connection)) if survey.has_claims else survey

    async def wanted(self, freshness: float) -> int:
        """How many sessions are to be connected, counted no more than `freshness` seconds ago, by any node."""
        async with self._database.autocommit() as connection:
            known: int | None = await connection.value("known_wanted", freshness)
            if known is None:
                known = int(await connection.value("count_wanted"))
                await connection.run("keep_wanted", known)
        return known

    async def others_are_awaited(self, seconds: float) -> bool:
        """Some node was heard of `seconds` ago or later, has not stopped, and is not heard of now."""
        async with self._database.autocommit() as connection:
            return bool(await connection.value("nodes_are_awaited", seconds))

    async def neighbours(self, incarnation: UUID, scope: str) -> Mapping[UUID, str]:
        """Return the names of the other nodes of this scope that own something or count as living."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("neighbours", incarnation, scope)
        return {row["incarnation"]: row["node"] for row in found}

    async def end_leases(self, dead: UUID) -> int | None:
        """End the leases of a node that is dead and return how many; None if Postgres still serves it."""
        async with self._database.autocommit() as connection:
            ended: int | None = await connection.value("end_leases_of_dead_node", dead)
        return ended


async def _candidates(connection: Connection, but: UUID | None = None) -> Sequence[Candidate]:
    """Nodes that go on, perhaps but one."""
    found = await connection.rows("candidates", but)
    return [
        Candidate(Node(row["incarnation"], row["node"], row["address"]), row["sessions"], row["most_sessions"])
        for row in found
    ]
