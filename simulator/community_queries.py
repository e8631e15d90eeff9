"""Answers queries about communities: which groups belong to them, and who is in those."""

from __future__ import annotations

from simulator.accounts import Device
from simulator.answers import Handlers, bad_request, forbidden
from simulator.binary_xml import Node, node
from simulator.group_access import group_of, group_of_admin
from simulator.group_stanzas import announce_change, link_change, link_target, participant
from simulator.groups import Group, Groups
from simulator.membership import Membership

_NOT_FOUND, _FORBIDDEN, _ALREADY_LINKED = 404, 403, 409


class CommunityQueries:
    """Handlers of the namespace w:g2 for communities."""

    def __init__(self, groups: Groups, membership: Membership) -> None:
        self._groups = groups
        self._membership = membership

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("w:g2", "get", "sub_groups"): self._list_groups,
            ("w:g2", "get", "linked_groups_participants"): self._list_members,
            ("w:g2", "set", "links"): self._link,
            ("w:g2", "set", "unlink"): self._unlink,
        }

    def _list_groups(self, asking: Device, query: Node) -> list[Node]:
        community = _community(group_of(self._groups, asking, query))
        return [node("sub_groups", {}, *(link_target(group) for group in self._groups.subgroups(community)))]

    def _list_members(self, asking: Device, query: Node) -> list[Node]:
        community = _community(group_of(self._groups, asking, query))
        members = dict.fromkeys(it for group in self._groups.subgroups(community) for it in group.members)
        return [node("linked_groups_participants", {}, *(participant(member) for member in members))]

    def _link(self, asking: Device, query: Node) -> list[Node]:
        community = _community(group_of_admin(self._groups, asking, query))
        link = query.children[0].find("link") or Node("link")
        if link.text("link_type") != "sub_group":
            raise bad_request()
        results = [self._linked(community, asking, part) for part in link.find_all("group")]
        return [node("links", {}, node("link", {"link_type": "sub_group"}, *results))]

    def _linked(self, community: Group, asking: Device, asked: Node) -> Node:
        """Link one group, and return its result."""
        jid, group = asked.jid("jid"), self._groups.find(asked.jid("jid"))
        error = None
        if group is None or group.is_community:
            error = _NOT_FOUND
        elif not group.is_admin(asking.account):
            error = _FORBIDDEN
        elif group.parent is not None:
            error = _ALREADY_LINKED
        else:
            group.parent = community
            announce_change(group, asking, link_change("link", "parent_group", community))
            announce_change(community, asking, link_change("link", "sub_group", group))
            self._membership.admit(group, group.members, asking, "linked_group_join")
        return node("group", {"jid": jid, "error": error})

    def _unlink(self, asking: Device, query: Node) -> list[Node]:
        community = _community(group_of_admin(self._groups, asking, query))
        wanted = query.children[0]
        groups = [self._groups.find(part.jid("jid")) for part in wanted.find_all("group")]
        if wanted.text("unlink_type") != "sub_group" or not groups:
            raise bad_request()
        results = []
        for group, asked in zip(groups, wanted.find_all("group"), strict=True):
            if group is None or group.parent is not community:
                results.append(node("group", {"jid": asked.jid("jid"), "error": _NOT_FOUND}))
                continue
            if group.is_default_subgroup:
                raise forbidden()
            group.parent = None
            reason = "unlink_group"
            announce_change(group, asking, link_change("unlink", "parent_group", community, reason))
            announce_change(community, asking, link_change("unlink", "sub_group", group, reason))
            results.append(node("group", {"jid": group.jid}))
        return [node("unlink", {"unlink_type": "sub_group"}, *results)]


def _community(group: Group) -> Group:
    if not group.is_community:
        raise bad_request()
    return group
