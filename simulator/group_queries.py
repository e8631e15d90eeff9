"""Answers queries that create, show and leave groups."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.accounts import Account, Device, Directory
from simulator.announcing import announce
from simulator.answers import Handlers, bad_request, forbidden, not_acceptable
from simulator.binary_xml import Node, node
from simulator.group_access import find_group, group_of
from simulator.group_stanzas import announce_change, creation, group_stanza, link_change, new_key, participant
from simulator.groups import Group, Groups
from simulator.jid import Jid
from simulator.membership import Membership
from simulator.settings_queries import TIMERS

LONGEST_SUBJECT = 100


class GroupQueries:
    """Handlers of the namespace w:g2 for groups as a whole."""

    def __init__(self, directory: Directory, groups: Groups, membership: Membership) -> None:
        self._directory = directory
        self._groups = groups
        self._membership = membership

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("w:g2", "set", "create"): self._create,
            ("w:g2", "get", "query"): self._show,
            ("w:g2", "get", "participating"): self._list,
            ("w:g2", "set", "leave"): self._leave,
        }

    def _show(self, asking: Device, query: Node) -> list[Node]:
        asked = query.find("query") or Node("query")
        request = asked.find("add_request")
        if request is None:
            return [group_stanza(group_of(self._groups, asking, query))]
        group = find_group(self._groups, query.jid("to"))
        invitation = group.invitations.get(asking.account)
        if invitation is None or invitation.code != request.text("code"):
            raise not_acceptable()
        return [group_stanza(group)]

    def _list(self, asking: Device, _query: Node) -> list[Node]:
        return [node("groups", {}, *(group_stanza(group) for group in self._groups.of(asking.account)))]

    # --- creation

    def _create(self, asking: Device, query: Node) -> list[Node]:
        wanted, creator = query.find("create") or Node("create"), asking.account
        parent = self._parent(creator, wanted)
        timer = (wanted.find("ephemeral") or Node("ephemeral")).text("expiration") or "0"
        if timer not in TIMERS:
            raise bad_request()
        if len(wanted.text("subject")) > LONGEST_SUBJECT:
            raise not_acceptable()
        group = self._groups.create(creator, wanted.text("subject"))
        group.parent, group.expiration = parent, int(timer)
        _set_modes(group, wanted)
        people = [part.jid("jid") for part in wanted.find_all("participant")]
        joining, refused = self._added(group, creator, people)
        for account in joining:
            group.join(account)
        if parent is not None:
            self._membership.admit(group, joining, asking)  # to the community, too
            announce_change(parent, asking, link_change("link", "sub_group", group))
        self._announce_creation(group, asking, wanted.text("key"))
        if group.is_community:
            self._create_default_subgroup(group, asking)
        return [group_stanza(group, *refused)]

    def _parent(self, creator: Account, wanted: Node) -> Group | None:
        linked = wanted.find("linked_parent")
        if linked is None:
            return None
        parent = find_group(self._groups, linked.jid("jid"))
        if not parent.is_community:
            raise bad_request()
        if not parent.is_admin(creator):
            raise forbidden()
        return parent

    def _added(self, group: Group, creator: Account, people: Iterable[Jid | None]) -> tuple[list[Account], list[Node]]:
        """Return who is added to a new group, and the others with the reason."""
        joining: dict[Account, None] = {}
        refused: list[Node] = []
        for jid in people:
            account = self._directory.account(jid)
            if account is None:
                refused.append(node("participant", {"jid": jid, "error": 404}))
            elif account is not creator and not account.shows("groupadd", creator):
                refused.append(invited(group, account, creator))
            elif account is not creator:
                joining[account] = None
        return list(joining), refused

    def _create_default_subgroup(self, community: Group, asking: Device) -> None:
        """Create the announcement group of a new community."""
        group = self._groups.create(community.creator, community.subject)
        group.parent, group.is_default_subgroup, group.is_announcement = community, True, True
        for account in community.members:
            group.join(account)
        self._announce_creation(group, asking, "")

    def _announce_creation(self, group: Group, asking: Device, key: str) -> None:
        announce(creation(group, asking.account, key=key or new_key()), group.members, besides=asking)

    # --- leaving

    def _leave(self, asking: Device, query: Node) -> list[Node]:
        leave = query.find("leave") or Node("leave")
        left = [find_group(self._groups, part.jid("id")) for part in leave.find_all("group")]
        if not left:
            raise bad_request()
        if any(asking.account not in group.ranks for group in left):
            raise forbidden()
        for group in left:
            self._membership.dismiss(group, [asking.account], asking)
        return [node("leave", {}, *(node("group", {"id": group.jid}) for group in left))]


def invited(group: Group, account: Account, inviter: Account) -> Node:
    """Return the answer for a person who cannot be added, with an invitation that the inviter may send."""
    invitation = group.invite(account, inviter)
    request = node("add_request", {"code": invitation.code, "expiration": invitation.expires_at})
    return participant(account, request, error=403)


def _set_modes(group: Group, wanted: Node) -> None:
    """Set who may add and join, and whether a new group is a community."""
    mode, approval, community = (wanted.find(tag) for tag in ("member_add_mode", "membership_approval_mode", "parent"))
    group.only_admins_add = mode is not None and mode.data == b"admin_add"
    join = approval.find("group_join") if approval else None
    group.needs_approval = join is not None and join.text("state") == "on"
    if community is not None:
        group.is_community = True
        group.needs_approval = community.text("default_membership_approval_mode") == "request_required"
