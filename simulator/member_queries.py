"""Answers queries about the members of groups: who is added, removed, promoted, and waits for an approval."""

from __future__ import annotations

from collections.abc import Callable

from simulator.accounts import Account, Device, Directory
from simulator.answers import Handlers, bad_request, forbidden
from simulator.binary_xml import Node, node
from simulator.group_access import group_of, group_of_admin
from simulator.group_queries import invited
from simulator.group_stanzas import announce_change, participant, participants
from simulator.groups import Group, Groups, Rank
from simulator.membership import Membership

_NOT_ALLOWED, _NOT_FOUND, _ALREADY_IN = 405, 404, 409

#: Returns why an action on an account is refused, or 0.
_Check = Callable[[Account], int]


class MemberQueries:
    """Handlers of the namespace w:g2 for members."""

    def __init__(self, directory: Directory, groups: Groups, membership: Membership) -> None:
        self._directory = directory
        self._groups = groups
        self._membership = membership

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("w:g2", "set", "add"): self._add,
            ("w:g2", "set", "remove"): self._remove,
            ("w:g2", "set", "promote"): self._promote,
            ("w:g2", "set", "demote"): self._demote,
            ("w:g2", "get", "membership_approval_requests"): self._show_requests,
            ("w:g2", "set", "membership_requests_action"): self._decide,
        }

    def _add(self, asking: Device, query: Node) -> list[Node]:
        group, actor = group_of(self._groups, asking, query), asking.account
        if not group.may_add(actor):
            raise forbidden()
        results, joining = [], []
        for account, asked in self._named(query, "add"):
            if account is None:
                results.append(_refused(asked, _NOT_FOUND))
            elif account in group.ranks or account in joining:
                results.append(participant(account, error=_ALREADY_IN))
            elif not account.shows("groupadd", actor):
                results.append(invited(group, account, actor))
            else:
                joining.append(account)
                results.append(participant(account))
        if joining:
            self._membership.admit(group, joining, asking)
        return [node("add", {}, *results)]

    def _remove(self, asking: Device, query: Node) -> list[Node]:
        group = group_of_admin(self._groups, asking, query)
        removed, answer = self._checked(query, "remove", group, _is_removable(group))
        if removed:
            self._membership.dismiss(group, removed, asking)
        return [answer]

    def _promote(self, asking: Device, query: Node) -> list[Node]:
        group = group_of_admin(self._groups, asking, query)
        promoted, answer = self._checked(query, "promote", group, lambda _account: 0)
        self._set_rank(group, asking, "promote", [it for it in promoted if not group.is_admin(it)], Rank.ADMIN)
        return [answer]

    def _demote(self, asking: Device, query: Node) -> list[Node]:
        group = group_of_admin(self._groups, asking, query)
        demoted, answer = self._checked(query, "demote", group, _is_removable(group))
        self._set_rank(group, asking, "demote", [it for it in demoted if group.is_admin(it)], Rank.MEMBER)
        return [answer]

    def _set_rank(self, group: Group, asking: Device, tag: str, accounts: list[Account], rank: Rank) -> None:
        if not accounts:
            return
        previous = group.participant_version
        group.participant_version += 1
        group.ranks.update(dict.fromkeys(accounts, rank))
        versions = {"v_id": group.participant_version, "prev_v_id": previous}
        announce_change(group, asking, participants(tag, accounts, **versions))

    # --- approvals

    def _show_requests(self, asking: Device, query: Node) -> list[Node]:
        group = group_of_admin(self._groups, asking, query)
        waiting = [
            node(
                "membership_approval_request",
                {
                    "jid": account.lid_jid(),
                    "phone_number": account.pn_jid(),
                    "request_time": asked_at,
                    "request_method": "invite_link",
                },
            )
            for account, asked_at in group.requests.items()
        ]
        return [node("membership_approval_requests", {}, *waiting)]

    def _decide(self, asking: Device, query: Node) -> list[Node]:
        group = group_of_admin(self._groups, asking, query)
        action = query.find("membership_requests_action") or Node("membership_requests_action")
        answers = []
        for decision in action.children:
            if decision.tag not in ("approve", "reject"):
                raise bad_request()
            named = [(self._directory.account(part.jid("jid")), part) for part in decision.find_all("participant")]
            waiting = [account for account, _part in named if account is not None and account in group.requests]
            results = [
                _refused(part, _NOT_FOUND) if account is None or account not in waiting else participant(account)
                for account, part in named
            ]
            answers.append(node(decision.tag, {}, *results))
            if decision.tag == "approve" and waiting:
                self._membership.admit(group, waiting, asking)
            for account in waiting:
                group.requests.pop(account, None)
        return [node("membership_requests_action", {}, *answers)]

    # --- participants of a query

    def _named(self, query: Node, tag: str) -> list[tuple[Account | None, Node]]:
        """Return the people that a query names. Raise QueryFailed if there are none."""
        part = query.find(tag) or Node(tag)
        named = [(self._directory.account(it.jid("jid")), it) for it in part.find_all("participant")]
        if not named:
            raise bad_request()
        return named

    def _checked(self, query: Node, tag: str, group: Group, check: _Check) -> tuple[list[Account], Node]:
        """Return the members that a query names and may change, and the answer with a result for each name."""
        accepted, results = [], []
        for account, asked in self._named(query, tag):
            if account is None or account not in group.ranks:
                results.append(_refused(asked, _NOT_FOUND))
            elif error := check(account):
                results.append(participant(account, error=error))
            else:
                accepted.append(account)
                results.append(participant(account))
        return accepted, node(tag, {}, *results)


def _is_removable(group: Group) -> _Check:
    return lambda account: _NOT_ALLOWED if group.ranks[account] is Rank.SUPERADMIN else 0


def _refused(asked: Node, error: int) -> Node:
    return node("participant", {"jid": asked.jid("jid"), "error": error})
