"""Answers usync queries: who is on WhatsApp, with which devices, and what they show of themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator

from simulator.accounts import Account, Device, Directory
from simulator.answers import Handlers, bad_request
from simulator.binary_xml import Attrs, Node, node
from simulator.jid import LID_SERVER, Jid
from simulator.verified_names import certificate


class ContactQueries:
    """The handler of the namespace usync."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {("usync", "get", "usync"): self._usync}

    def _usync(self, asking: Device, query: Node) -> list[Node]:
        usync = query.find("usync") or Node("usync")
        asked, wanted = usync.find("list"), usync.find("query")
        if asked is None or wanted is None:
            raise bad_request()
        parts = {part.tag for part in wanted.children}
        users = [self._user(asking.account, user, parts) for user in asked.children]
        kept: Attrs = {name: usync.text(name) for name in ("sid", "mode", "context", "index", "last")}
        return [node("usync", kept, node("list", {}, *users))]

    def _user(self, viewer: Account, asked: Node, wanted: set[str]) -> Node:
        contact = asked.find("contact")
        if contact is not None:
            return self._contact(viewer, contact, wanted)
        jid = asked.jid("jid") or Jid("")
        account = self._directory.account(jid)
        if account is None:
            nobody = [node("devices", {}, node("device-list"))] if "devices" in wanted else []
            return node("user", {"jid": jid}, *nobody)
        if jid.server != LID_SERVER:
            wanted = wanted | {"lid"}
        return node("user", {"jid": jid}, *_parts(account, viewer, wanted))

    def _contact(self, viewer: Account, contact: Node, wanted: set[str]) -> Node:
        """Return whether a phone number is on WhatsApp. The number comes back as the client wrote it."""
        number = contact.data.decode(errors="replace").partition("@")[0].lstrip("+")
        account = self._directory.by_pn(number)
        if account is None:
            return node("user", {"jid": Jid(number)}, node("contact", {"type": "out"}, contact.data))
        return node(
            "user",
            {"jid": account.lid_jid(), "pn_jid": account.pn_jid()},
            node("contact", {"type": "in"}, contact.data),
            *_parts(account, viewer, wanted | {"lid"}),
        )


def _parts(account: Account, viewer: Account, wanted: set[str]) -> Iterator[Node]:
    """Yield what a query wants to know of an account, as far as the viewer may see it."""
    profile = account.profile
    if "devices" in wanted:
        yield _devices(account)
    if "lid" in wanted:
        yield node("lid", {"val": account.lid_jid()})
    if "status" in wanted and account.shows("status", viewer):
        yield node("status", {"t": profile.about_set_at}, profile.about.encode())
    elif "status" in wanted:
        yield node("status", {"code": 401})
    if "picture" in wanted and profile.picture is not None and account.shows("profile", viewer):
        yield node("picture", {"id": profile.picture.id})
    if "business" in wanted and profile.business_name:
        yield node("business", {}, node("verified_name", {"v": 1, "serial": 1}, certificate(profile.business_name)))
    if "disappearing_mode" in wanted:
        yield node("disappearing_mode", {"duration": profile.disappearing, "t": profile.disappearing_set_at})


def _devices(account: Account) -> Node:
    listed = [node("device", {"id": number, "key-index": number or None}) for number in sorted(account.devices)]
    return node("devices", {}, node("device-list", {}, *listed), node("key-index-list", {"ts": int(time.time())}))
