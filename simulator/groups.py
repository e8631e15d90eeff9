"""Holds the groups: their members with ranks, their settings, and who may do what."""

from __future__ import annotations

import base64
import enum
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulator.accounts import Account, Device
from simulator.jid import GROUP_SERVER, Jid
from simulator.profiles import Picture

#: Seconds for which an invitation to one person is valid.
_INVITATION_SECONDS = 3 * 86_400


def _invite_code() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


class Rank(enum.StrEnum):
    """The rights of a member."""

    MEMBER = ""
    ADMIN = "admin"
    SUPERADMIN = "superadmin"
    """The creator, who cannot be removed or demoted."""


@dataclass(frozen=True)
class Subject:
    """The name of a group and its author."""

    text: str
    author: Account
    set_at: int


@dataclass(frozen=True)
class Description:
    """The description of a group and its author. The client chooses the id."""

    id: str
    text: str
    author: Account
    set_at: int


@dataclass(frozen=True)
class Invitation:
    """An invitation to one person, whom the inviter could not add."""

    code: str
    inviter: Account
    expires_at: int


@dataclass(eq=False)
class Group:
    """A group or a community, whose members are addressed by their hidden ids."""

    jid: Jid
    creator: Account
    created_at: int
    name: Subject
    #: in the order of joining
    ranks: dict[Account, Rank]
    description: Description | None = None
    picture: Picture | None = None
    #: whether only admins may change subject, description, picture and timer
    is_locked: bool = False
    #: whether only admins may write
    is_announcement: bool = False
    #: seconds after which messages disappear; 0 is never
    expiration: int = 0
    only_admins_add: bool = False
    needs_approval: bool = False
    invite_code: str = field(default_factory=_invite_code)
    revoked_codes: set[str] = field(default_factory=set)
    #: when people who wait for an approval have asked, in Unix seconds
    requests: dict[Account, int] = field(default_factory=dict)
    invitations: dict[Account, Invitation] = field(default_factory=dict)
    is_community: bool = False
    #: the community that the group belongs to
    parent: Group | None = None
    #: whether this is the announcement group of its community, to which all its members belong
    is_default_subgroup: bool = False
    #: counts the changes of the members
    participant_version: int = 1
    #: counts the changes of who may write
    announcement_version: int = 1

    @property
    def subject(self) -> str:
        """The name."""
        return self.name.text

    @property
    def members(self) -> tuple[Account, ...]:
        """All members, the longest one first."""
        return tuple(self.ranks)

    @property
    def admins(self) -> list[Account]:
        """The members with the rights of an admin."""
        return [member for member, rank in self.ranks.items() if rank is not Rank.MEMBER]

    @property
    def devices(self) -> Iterator[Device]:
        """Return every member's phone and linked devices."""
        return (device for member in self.members for device in list(member.devices.values()))

    # --- rights

    def is_admin(self, account: Account) -> bool:
        """Return whether an account is an admin."""
        return self.ranks.get(account, Rank.MEMBER) is not Rank.MEMBER

    def may_describe(self, account: Account) -> bool:
        """Return whether an account may change subject, description, picture and timer."""
        return account in self.ranks and (not self.is_locked or self.is_admin(account))

    def may_add(self, account: Account) -> bool:
        """Return whether an account may add members."""
        return account in self.ranks and (not self.only_admins_add or self.is_admin(account))

    def may_write(self, account: Account) -> bool:
        """Return whether an account may send messages."""
        return account in self.ranks and (not self.is_announcement or self.is_admin(account))

    # --- changes

    def rename(self, author: Account, text: str) -> None:
        """Set the subject."""
        self.name = Subject(text, author, int(time.time()))

    def describe(self, author: Account, description_id: str, text: str) -> None:
        """Set the description."""
        self.description = Description(description_id, text, author, int(time.time()))

    def reset_invite_code(self) -> None:
        """Replace the code of the invite link."""
        self.revoked_codes.add(self.invite_code)
        self.invite_code = _invite_code()

    def invite(self, account: Account, inviter: Account) -> Invitation:
        """Return a new invitation for one person."""
        invitation = Invitation(_invite_code(), inviter, int(time.time()) + _INVITATION_SECONDS)
        self.invitations[account] = invitation
        return invitation

    def join(self, account: Account) -> None:
        """Add a member."""
        self.ranks.setdefault(account, Rank.MEMBER)
        self.requests.pop(account, None)
        self.invitations.pop(account, None)
        self.participant_version += 1

    def leave(self, account: Account) -> None:
        """Remove a member. The longest member becomes an admin if there is none."""
        self.ranks.pop(account, None)
        if self.ranks and not self.admins:
            self.ranks[self.members[0]] = Rank.ADMIN
        self.participant_version += 1


class Groups:
    """All groups and communities, in order of creation."""

    def __init__(self) -> None:
        self._by_jid: dict[Jid, Group] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._by_jid.values()))

    def create(self, creator: Account, subject: str) -> Group:
        """Create a group with one member."""
        jid, now = Jid(f"120363{secrets.randbelow(10**12):012}", GROUP_SERVER), int(time.time())
        ranks = {creator: Rank.SUPERADMIN}
        group = self._by_jid[jid] = Group(jid, creator, now, Subject(subject, creator, now), ranks)
        return group

    def find(self, jid: Jid | None) -> Group | None:
        """Return the group at an address; None if there is none."""
        return self._by_jid.get(jid) if jid is not None else None

    def of(self, member: Account) -> list[Group]:
        """Return the groups of a member."""
        return [group for group in self if member in group.ranks]

    def subgroups(self, community: Group) -> list[Group]:
        """Return the groups of a community, its announcement group first."""
        return [group for group in self if group.parent is community]

    def family(self, group: Group) -> list[Group]:
        """Return the community of a group and the announcement group; nothing if the group has no community."""
        if group.parent is None:
            return []
        return [group.parent, *(it for it in self.subgroups(group.parent) if it.is_default_subgroup)]
