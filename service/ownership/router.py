"""Finds the node that carries out a call that needs a session's owner."""

from collections.abc import Callable
from uuid import UUID

from service.domain.lease import LeaseOwner
from service.ports.leases import Directory


class Router:
    """Finds owners; a session that runs here is found without the database."""

    def __init__(self, directory: Directory, incarnation: UUID, is_here: Callable[[str], bool]) -> None:
        """`is_here` says whether this node runs a session (sessions.registry.RunnerRegistry)."""
        self._directory = directory
        self._incarnation = incarnation
        self._is_here = is_here

    def is_here(self, session_id: str) -> bool:
        """Return whether this node runs the session."""
        return self._is_here(session_id)

    async def remote_owner(self, session_id: str) -> LeaseOwner | None:
        """Return the other node that owns the session; None if this node owns it or it has no owner."""
        if self._is_here(session_id):
            return None
        holder = await self._directory.holder(session_id)
        # A lease of this node whose runner has not started or has ended is handled here: the call is refused.
        return holder if holder is not None and holder.node.incarnation != self._incarnation else None
