"""Answers queries about invite links of groups, and invitations to one person."""

from __future__ import annotations

import time

from simulator.accounts import Device
from simulator.announcing import announce
from simulator.answers import Handlers, QueryFailed, conflict, not_acceptable, not_authorized
from simulator.binary_xml import Node, node
from simulator.group_access import find_group, group_of
from simulator.group_stanzas import announce_change, change, group_stanza
from simulator.groups import Group, Groups
from simulator.membership import Membership


class InviteQueries:
    """Handlers of the namespace w:g2 for invitations. A link's query goes to the group, a code's to all groups."""

    def __init__(self, groups: Groups, membership: Membership) -> None:
        self._groups = groups
        self._membership = membership

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("w:g2", "get", "invite"): self._show,
            ("w:g2", "set", "invite"): self._reset_or_join,
            ("w:g2", "set", "accept"): self._accept,
        }

    def _show(self, asking: Device, query: Node) -> list[Node]:
        code = query.children[0].text("code")
        if code:
            return [group_stanza(self._invited_to(code))]
        return [_invite(self._group_of_admin(asking, query))]

    def _reset_or_join(self, asking: Device, query: Node) -> list[Node]:
        code = query.children[0].text("code")
        if code:
            return self._join(asking, self._invited_to(code))
        group = self._group_of_admin(asking, query)
        group.reset_invite_code()
        announce_change(group, asking, _invite(group))
        return [_invite(group)]

    def _join(self, asking: Device, group: Group) -> list[Node]:
        joining = asking.account
        if joining in group.ranks:
            raise conflict()
        if not group.needs_approval:
            self._membership.admit(group, [joining], asking, "invite")
            return [node("group", {"jid": group.jid})]
        group.requests.setdefault(joining, int(time.time()))
        requested = node("requested_user", {"jid": joining.lid_jid(), "phone_number": joining.pn_jid()})
        created = node("created_membership_requests", {"request_method": "invite_link"}, requested)
        announce(change(group, joining, created), group.admins)
        return [node("membership_approval_request", {"jid": group.jid})]

    def _accept(self, asking: Device, query: Node) -> list[Node]:
        """Accept an invitation to one person, which bypasses the approval, since an admin has invited."""
        group, wanted = find_group(self._groups, query.jid("to")), query.children[0]
        invitation = group.invitations.get(asking.account)
        if asking.account in group.ranks:
            raise conflict()
        if invitation is None or invitation.code != wanted.text("code"):
            raise not_acceptable()
        if invitation.expires_at < time.time():
            raise _gone()
        self._membership.admit(group, [asking.account], asking, "invite")
        return [node("group", {"jid": group.jid})]

    def _group_of_admin(self, asking: Device, query: Node) -> Group:
        """Return the group that an admin's query is for. Clients read 403 as "not a member" here, and 401 as this."""
        group = group_of(self._groups, asking, query)
        if not group.is_admin(asking.account):
            raise not_authorized()
        return group

    def _invited_to(self, code: str) -> Group:
        for group in self._groups:
            if group.invite_code == code:
                return group
            if code in group.revoked_codes:
                raise _gone()
        raise not_acceptable()


def _gone() -> QueryFailed:
    return QueryFailed(410, "gone")


def _invite(group: Group) -> Node:
    return node("invite", {"code": group.invite_code})
