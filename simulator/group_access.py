"""Finds the group that a query is for, and refuses those who may not ask."""

from __future__ import annotations

from simulator.accounts import Device
from simulator.answers import forbidden, not_found
from simulator.binary_xml import Node
from simulator.groups import Group, Groups
from simulator.jid import Jid


def find_group(groups: Groups, jid: Jid | None) -> Group:
    """Return the group at an address. Raise QueryFailed (404)."""
    group = groups.find(jid)
    if group is None:
        raise not_found()
    return group


def group_of(groups: Groups, asking: Device, query: Node) -> Group:
    """Return the group that a member's query is for. Raise QueryFailed (404, or 403 if not a member)."""
    group = find_group(groups, query.jid("to"))
    if asking.account not in group.ranks:
        raise forbidden()
    return group


def group_of_admin(groups: Groups, asking: Device, query: Node) -> Group:
    """Return the group that an admin's query is for. Raise QueryFailed (404, or 403 if not an admin)."""
    group = group_of(groups, asking, query)
    if not group.is_admin(asking.account):
        raise forbidden()
    return group
