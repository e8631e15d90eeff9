"""Lets people join and leave groups, with the groups of the same community, and notifies everybody concerned."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.accounts import Account, Device
from simulator.announcing import announce
from simulator.group_stanzas import change, creation, participants
from simulator.groups import Group, Groups


class Membership:
    """Changes the members of groups."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def admit(self, group: Group, joining: Sequence[Account], asking: Device, reason: str | None = None) -> None:
        """Add people to a group and to its community, and notify them and the members."""
        for concerned in (*self._groups.family(group), group):
            new = [account for account in joining if account not in concerned.ranks]
            if new:
                self._admit(concerned, new, asking, reason)

    def dismiss(self, group: Group, leaving: Sequence[Account], asking: Device) -> None:
        """Remove people from a group, or from a community with all its groups, and notify them and the members."""
        for concerned in (*self._groups.subgroups(group), group):
            gone = [account for account in leaving if account in concerned.ranks]
            if gone:
                self._dismiss(concerned, gone, asking)

    def _admit(self, group: Group, joining: Sequence[Account], asking: Device, reason: str | None) -> None:
        before, version = group.members, group.participant_version
        for account in joining:
            group.join(account)
        added = participants("add", joining, reason=reason, v_id=group.participant_version, prev_v_id=version)
        announce(change(group, asking.account, added), before, besides=asking)
        # A device that joins by itself hears of the group, too: it does not know its members yet.
        announce(creation(group, asking.account, reason=reason), joining)

    def _dismiss(self, group: Group, leaving: Sequence[Account], asking: Device) -> None:
        before, version = group.members, group.participant_version
        for account in leaving:
            group.leave(account)
        removed = participants("remove", leaving, v_id=group.participant_version, prev_v_id=version)
        announce(change(group, asking.account, removed), before, besides=asking)
