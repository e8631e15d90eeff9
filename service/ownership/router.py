"""Who carries out a call that needs a session's owner: this node, another one, or nobody."""

from collections.abc import Callable
from uuid import UUID

from service.domain.lease import LeaseOwner
from service.ports import Directory


class Router:
    """Finds the owner. What is owned here is found without asking anybody."""

    def __init__(self, directory: Directory, incarnation: UUID, is_here: Callable[[str], bool]) -> None:
        """`is_here`: whether this node runs the session (sessions.roster.Roster)."""
        self._directory = directory
        self._incarnation = incarnation
        self._is_here = is_here

    def is_here(self, session_id: str) -> bool:
        """This node runs it."""
        return self._is_here(session_id)

    async def elsewhere(self, session_id: str) -> LeaseOwner | None:
        """The other node that owns the session; None if it is this one, or nobody."""
        if self._is_here(session_id):
            return None
        holder = await self._directory.holder(session_id)
        # A lease of ours whose runner is not there yet, or not any more: whoever calls is told so here.
        return holder if holder is not None and holder.node.incarnation != self._incarnation else None
