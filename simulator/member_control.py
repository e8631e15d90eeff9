"""Lets a member of a group act, from Python."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from simulator.binary_xml import Node, node
from simulator.jid import GROUP_SERVER, Jid


class Ask(Protocol):
    """Sends a query from a phone, and returns the content of the result."""

    def __call__(self, namespace: str, kind: str, child: Node | None = None, **attrs: str) -> Awaitable[Sequence[Node]]:
        """Send the query."""


class MemberControl:
    """One person in one group. What the server refuses raises ControlError of the kind QueryFailed."""

    def __init__(self, group: str, ask: Ask) -> None:
        self._group = group
        self._ask = ask

    async def add(self, *numbers: str) -> list[int]:
        """Add phone numbers. Return an error code for each; 0 is success."""
        return await self._on_members("add", numbers)

    async def remove(self, *numbers: str) -> list[int]:
        """Remove phone numbers. Return an error code for each; 0 is success."""
        return await self._on_members("remove", numbers)

    async def promote(self, *numbers: str) -> list[int]:
        """Make phone numbers admins. Return an error code for each; 0 is success."""
        return await self._on_members("promote", numbers)

    async def demote(self, *numbers: str) -> list[int]:
        """Make admins ordinary members. Return an error code for each; 0 is success."""
        return await self._on_members("demote", numbers)

    async def rename(self, subject: str) -> None:
        """Set the subject."""
        await self.set(node("subject", {}, subject.encode()))

    async def describe(self, text: str, description_id: str, previous_id: str = "") -> None:
        """Set the description; `previous_id` is the id of the one that it replaces."""
        about = {"id": description_id, "prev": previous_id or None}
        await self.set(node("description", about, node("body", {}, text.encode())))

    async def require_approval(self, *, required: bool) -> None:
        """Set whether an admin has to approve people who join."""
        join = node("group_join", {"state": "on" if required else "off"})
        await self.set(node("membership_approval_mode", {}, join))

    async def reset_invite(self) -> str:
        """Replace the code of the invite link. Return the new one."""
        (invite,) = await self.set(node("invite"))
        return invite.text("code")

    async def leave(self) -> None:
        """Leave the group."""
        leave = node("leave", {}, node("group", {"id": Jid.parse(self._group)}))
        await self._ask("w:g2", "set", leave, to=GROUP_SERVER)

    async def set(self, change: Node) -> Sequence[Node]:
        """Send any change, for example <locked/> or <announcement/>. Return the content of the result."""
        return await self._ask("w:g2", "set", change, to=self._group)

    async def _on_members(self, tag: str, numbers: Sequence[str]) -> list[int]:
        people = (node("participant", {"jid": Jid(number)}) for number in numbers)
        (answer,) = await self.set(node(tag, {}, *people))
        return [int(part.text("error") or 0) for part in answer.children]
