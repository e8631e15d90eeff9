"""Answers queries that change what a group is called, and who may do what in it."""

from __future__ import annotations

from simulator.accounts import Device
from simulator.answers import Handlers, bad_request, conflict, forbidden, not_acceptable
from simulator.binary_xml import Attrs, Node, node
from simulator.group_access import group_of, group_of_admin
from simulator.group_queries import LONGEST_SUBJECT
from simulator.group_stanzas import announce_change
from simulator.groups import Group, Groups
from simulator.settings_queries import TIMERS

_LONGEST_DESCRIPTION = 2048


class GroupSettingQueries:
    """Handlers of the namespace w:g2 for settings."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("w:g2", "set", "subject"): self._rename,
            ("w:g2", "set", "description"): self._describe,
            ("w:g2", "set", "ephemeral"): self._set_timer,
            ("w:g2", "set", "not_ephemeral"): self._set_timer,
            ("w:g2", "set", "locked"): self._lock,
            ("w:g2", "set", "unlocked"): self._lock,
            ("w:g2", "set", "announcement"): self._restrict_writing,
            ("w:g2", "set", "not_announcement"): self._restrict_writing,
            ("w:g2", "set", "member_add_mode"): self._restrict_adding,
            ("w:g2", "set", "membership_approval_mode"): self._restrict_joining,
        }

    # --- for members, unless the group is locked

    def _rename(self, asking: Device, query: Node) -> list[Node]:
        group, text = self._described(asking, query), query.children[0].data.decode()
        if not 0 < len(text) <= LONGEST_SUBJECT:
            raise not_acceptable()
        group.rename(asking.account, text)
        author, name = asking.account, group.name
        about: Attrs = {"subject": text, "s_t": name.set_at, "s_o": author.lid_jid(), "s_o_pn": author.pn_jid()}
        announce_change(group, asking, node("subject", about))
        return []

    def _describe(self, asking: Device, query: Node) -> list[Node]:
        group, wanted = self._described(asking, query), query.children[0]
        current = group.description.id if group.description else ""
        body = wanted.find("body")
        if wanted.text("prev") != current:
            raise conflict()
        if wanted.text("delete") == "true":
            group.description = None
            change = node("description", {"id": wanted.text("id"), "prev": current or None}, node("delete"))
        elif body is None or not wanted.text("id"):
            raise bad_request()
        elif len(body.data.decode()) > _LONGEST_DESCRIPTION:
            raise not_acceptable()
        else:
            group.describe(asking.account, wanted.text("id"), body.data.decode())
            change = node("description", {"id": wanted.text("id"), "prev": current or None}, body)
        announce_change(group, asking, change)
        return []

    def _set_timer(self, asking: Device, query: Node) -> list[Node]:
        group, wanted = self._described(asking, query), query.children[0]
        timer = wanted.text("expiration") if wanted.tag == "ephemeral" else "0"
        if timer not in TIMERS:
            raise bad_request()
        group.expiration = int(timer)
        on = node("ephemeral", {"expiration": group.expiration})
        announce_change(group, asking, on if group.expiration else node("not_ephemeral"))
        return []

    def _described(self, asking: Device, query: Node) -> Group:
        group = group_of(self._groups, asking, query)
        if not group.may_describe(asking.account):
            raise forbidden()
        return group

    # --- for admins

    def _lock(self, asking: Device, query: Node) -> list[Node]:
        group, tag = group_of_admin(self._groups, asking, query), query.children[0].tag
        group.is_locked = tag == "locked"
        announce_change(group, asking, node(tag))
        return []

    def _restrict_writing(self, asking: Device, query: Node) -> list[Node]:
        group, tag = group_of_admin(self._groups, asking, query), query.children[0].tag
        group.is_announcement = tag == "announcement"
        group.announcement_version += 1
        # Clients drop the notification if it has no v_id.
        announce_change(group, asking, node(tag, {"v_id": group.announcement_version}))
        return []

    def _restrict_adding(self, asking: Device, query: Node) -> list[Node]:
        group, mode = group_of_admin(self._groups, asking, query), query.children[0]
        if mode.data not in (b"admin_add", b"all_member_add"):
            raise bad_request()
        group.only_admins_add = mode.data == b"admin_add"
        announce_change(group, asking, mode)
        return []

    def _restrict_joining(self, asking: Device, query: Node) -> list[Node]:
        group, mode = group_of_admin(self._groups, asking, query), query.children[0]
        join = mode.find("group_join")
        if join is None or join.text("state") not in ("on", "off"):
            raise bad_request()
        group.needs_approval = join.text("state") == "on"
        announce_change(group, asking, mode)
        return []
