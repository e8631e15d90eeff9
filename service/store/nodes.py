"""Nodes of the same machine: which ones are there, and the end of the leases of one that is dead."""

from collections.abc import Mapping
from uuid import UUID

from service.store.database import Database


class PostgresNeighbours:
    """ownership.dead_nodes.Neighbours on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
