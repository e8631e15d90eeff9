"""Answers the queries (iq) of linked devices and phones from tables by namespace, type and first child."""

from __future__ import annotations

import logging
import secrets

from simulator.accounts import Companion, Device, Directory
from simulator.answers import CompanionHandlers, Handlers, QueryFailed, child_of, refused, result
from simulator.binary_xml import Attrs, Node, node
from simulator.bookkeeping import Ledger
from simulator.community_queries import CommunityQueries
from simulator.contact_queries import ContactQueries
from simulator.device_queries import DeviceQueries
from simulator.group_queries import GroupQueries
from simulator.group_setting_queries import GroupSettingQueries
from simulator.groups import Groups
from simulator.invite_queries import InviteQueries
from simulator.member_queries import MemberQueries
from simulator.membership import Membership
from simulator.mex_queries import MexQueries
from simulator.newsletter_queries import NewsletterQueries
from simulator.newsletters import Newsletters
from simulator.profile_queries import ProfileQueries
from simulator.settings_queries import SettingsQueries

log = logging.getLogger(__name__)


class Queries:
    """All handlers: those for linked devices only, and those for phones, too."""

    def __init__(
        self, directory: Directory, groups: Groups, newsletters: Newsletters, ledger: Ledger, *, few_prekeys: bool
    ) -> None:
        membership, about_newsletters = Membership(groups), NewsletterQueries(newsletters)
        self._ledger = ledger
        self._for_companions: CompanionHandlers = {
            ("w:p", "get", ""): _nothing,
            ("w:m", "set", "media_conn"): _media_hosts,
            **DeviceQueries(directory, ledger, few_prekeys=few_prekeys).handlers(),
        }
        self._for_all: Handlers = {
            ("tos", "set", "notice"): _nothing,
            **ContactQueries(directory).handlers(),
            **ProfileQueries(directory, groups).handlers(),
            **SettingsQueries(directory).handlers(),
            **MexQueries(directory, about_newsletters.mex_handlers()).handlers(),
            **about_newsletters.handlers(),
            **GroupQueries(directory, groups, membership).handlers(),
            **MemberQueries(directory, groups, membership).handlers(),
            **GroupSettingQueries(groups).handlers(),
            **InviteQueries(groups, membership).handlers(),
            **CommunityQueries(groups, membership).handlers(),
        }

    def answer(self, device: Companion, query: Node) -> Node:
        """Return the answer to a linked device's query. An unknown query is logged and gets an empty result."""
        key = (query.text("xmlns"), query.text("type"), child_of(query))
        try:
            if key in self._for_companions:
                return result(query, self._for_companions[key](device, query))
            if key in self._for_all:
                return result(query, self._for_all[key](device, query))
        except QueryFailed as failure:
            return refused(query, failure)
        if self._ledger.note_unknown("iq/" + "/".join(key)):
            log.warning("unknown query %s, answered with an empty result", "/".join(key))
        return result(query, [])

    def answer_phone(self, phone: Device, query: Node) -> list[Node]:
        """Return the content of the result of a phone's query. Raise QueryFailed, also for an unknown query."""
        handler = self._for_all.get((query.text("xmlns"), query.text("type"), child_of(query)))
        if handler is None:
            raise QueryFailed(501, "feature-not-implemented")
        return handler(phone, query)


def _nothing(_device: Device, _query: Node) -> list[Node]:
    return []


def _media_hosts(_device: Companion, _query: Node) -> list[Node]:
    attrs: Attrs = {"auth": secrets.token_hex(16), "ttl": 3600, "auth_ttl": 3600, "max_buckets": 12}
    return [node("media_conn", attrs, node("host", {"hostname": "mmg.whatsapp.net"}))]
