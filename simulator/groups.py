"""Holds the groups and their members, and builds the stanzas that describe them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from simulator.accounts import Account, Device
from simulator.binary_xml import Attrs, Node, node
from simulator.jid import GROUP_SERVER, Jid
from simulator.profiles import Picture
from simulator.stanzas import notification


@dataclass(eq=False)
class Group:
    """A group, whose members are addressed by their hidden ids."""

    jid: Jid
    subject: str
    creator: Account
    #: the creator first
    members: tuple[Account, ...]
    created_at: int
    picture: Picture | None = None

    @property
    def devices(self) -> Iterator[Device]:
        """Return every member's phone and linked devices."""
        return (device for member in self.members for device in list(member.devices.values()))

    def may_describe(self, account: Account) -> bool:
        """Return whether an account may change the picture."""
        return account in self.members

    def stanza(self) -> Node:
        """Return the <group> of queries and notifications."""
        creator, created = self.creator, self.created_at
        about: Attrs = {
            "id": self.jid.user,
            "subject": self.subject,
            "creation": created,
            "creator": creator.lid_jid(),
            "creator_pn": creator.pn_jid(),
            "s_t": created,
            "s_o": creator.lid_jid(),
            "s_o_pn": creator.pn_jid(),
            "addressing_mode": "lid",
            "size": len(self.members),
        }
        return node("group", about, *(self._participant(member) for member in self.members))

    def creation(self) -> Node:
        """Return the notification of the new group for a device."""
        return notification(
            "w:gp2",
            self.jid,
            node("create", {"type": "new", "key": secrets.token_hex(8)}, self.stanza()),
            participant=self.creator.lid_jid(),
            participant_pn=self.creator.pn_jid(),
            notify=self.creator.push_name,
            addressing_mode="lid",
        )

    def _participant(self, member: Account) -> Node:
        rank = "superadmin" if member is self.creator else None
        return node("participant", {"jid": member.lid_jid(), "phone_number": member.pn_jid(), "type": rank})


class Groups:
    """All groups, in order of creation."""

    def __init__(self) -> None:
        self._by_jid: dict[Jid, Group] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._by_jid.values()))

    def create(self, creator: Account, subject: str, others: list[Account]) -> Group:
        """Create a group and notify the linked devices of its members."""
        jid = Jid(f"120363{secrets.randbelow(10**12):012}", GROUP_SERVER)
        members = tuple(dict.fromkeys((creator, *others)))
        group = self._by_jid[jid] = Group(jid, subject, creator, members, int(time.time()))
        for member in members:
            for device in member.companions:
                device.receive(group.creation())
        return group

    def find(self, jid: Jid | None) -> Group | None:
        """Return the group at an address; None if there is none."""
        return self._by_jid.get(jid) if jid is not None else None

    def of(self, member: Account) -> list[Group]:
        """Return the groups of a member."""
        return [group for group in self if member in group.members]
