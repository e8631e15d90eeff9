"""Builds the stanzas that describe groups and their changes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

from simulator.accounts import Account, Device
from simulator.announcing import announce
from simulator.binary_xml import Attrs, Node, node
from simulator.groups import Group
from simulator.stanzas import notification


def group_stanza(group: Group, *refused: Node) -> Node:
    """Return the <group> of queries and notifications. `refused` are people who could not be added."""
    creator, name = group.creator, group.name
    about: Attrs = {
        "id": group.jid.user,
        "subject": group.subject or None,
        "creation": group.created_at,
        "creator": creator.lid_jid(),
        "creator_pn": creator.pn_jid(),
        "s_t": name.set_at,
        "s_o": name.author.lid_jid(),
        "s_o_pn": name.author.pn_jid(),
        "addressing_mode": "lid",
        "size": len(group.members),
        "p_v_id": group.participant_version,
        "a_v_id": group.announcement_version,
    }
    members = (participant(member, type=rank.value or None) for member, rank in group.ranks.items())
    return node("group", about, *members, *refused, *_settings(group))


def participant(account: Account, *content: Node, **attrs: str | int | None) -> Node:
    """Return a <participant> with both addresses."""
    return node("participant", {"jid": account.lid_jid(), "phone_number": account.pn_jid(), **attrs}, *content)


def participants(tag: str, accounts: Iterable[Account], **attrs: str | int | None) -> Node:
    """Return a change of members, for example <add>."""
    return node(tag, attrs, *(participant(account) for account in accounts))


def link_target(group: Group, *, named: str = "id") -> Node:
    """Return the short <group> of communities, which names the group by its number (id) or its address (jid)."""
    address = group.jid.user if named == "id" else group.jid
    default = [node("default_sub_group")] if group.is_default_subgroup else []
    return node("group", {named: address, "subject": group.subject, "s_t": group.name.set_at}, *default)


def link_change(tag: str, kind: str, target: Group, reason: str | None = None) -> Node:
    """Return a change (link or unlink) of the groups of a community; kind: sub_group, or parent_group for a group."""
    return node(tag, {f"{tag}_type": kind, "unlink_reason": reason}, link_target(target, named="jid"))


def change(group: Group, actor: Account, *changes: Node) -> Node:
    """Return the notification of changes that a person made."""
    return notification(
        "w:gp2",
        group.jid,
        *changes,
        participant=actor.lid_jid(),
        participant_pn=actor.pn_jid(),
        notify=actor.push_name,
        addressing_mode="lid",
    )


def announce_change(group: Group, asking: Device, *changes: Node) -> None:
    """Notify all members of changes, except the device that made them."""
    announce(change(group, asking.account, *changes), group.members, besides=asking)


def creation(group: Group, actor: Account, *, key: str | None = None, reason: str | None = None) -> Node:
    """Return the notification of a new group (with a key), or of one that its addressee has joined."""
    attrs: Attrs = {"type": "new", "key": key} if key is not None else {"reason": reason}
    return change(group, actor, node("create", attrs, group_stanza(group)))


def new_key() -> str:
    """Return a key of a creation."""
    return secrets.token_hex(8)


def _settings(group: Group) -> Iterator[Node]:
    description = group.description
    if description is not None:
        about: Attrs = {
            "id": description.id,
            "t": description.set_at,
            "participant": description.author.lid_jid(),
            "participant_pn": description.author.pn_jid(),
        }
        yield node("description", about, node("body", {}, description.text.encode()))
    if group.is_locked:
        yield node("locked")
    if group.is_announcement:
        yield node("announcement")
    if group.expiration:
        yield node("ephemeral", {"expiration": group.expiration})
    yield node("member_add_mode", {}, b"admin_add" if group.only_admins_add else b"all_member_add")
    if group.needs_approval and not group.is_community:
        yield node("membership_approval_mode", {}, node("group_join", {"state": "on"}))
    if group.is_community:
        mode = "request_required" if group.needs_approval else None
        yield node("parent", {"default_membership_approval_mode": mode})
    if group.parent is not None:
        yield node("linked_parent", {"jid": group.parent.jid})
    if group.is_default_subgroup:
        yield node("default_sub_group")
