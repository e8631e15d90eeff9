"""Answers the queries (iq) of linked devices from one table."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping

from simulator.accounts import Account, Companion, Directory
from simulator.binary_xml import Attrs, Node, node
from simulator.bookkeeping import Ledger
from simulator.bundles import key_stanzas, read_prekey, registration_stanza
from simulator.groups import Group, Groups
from simulator.jid import LID_SERVER, SERVER, Jid
from simulator.phone import Phone
from simulator.prekeys import PreKeyBundle

log = logging.getLogger(__name__)

_PRIVACY = ("readreceipts", "profile", "status", "last", "groupadd", "calladd", "online")

#: Takes the device and the query, and returns the content of the result.
Handler = Callable[[Companion, Node], list[Node]]


class QueryFailed(Exception):
    """The query is answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.answer = node("error", {"code": code, "text": text})


class Queries:
    """Handlers by namespace and, where a namespace has several, by type and first child."""

    def __init__(self, directory: Directory, groups: Groups, ledger: Ledger, *, few_prekeys: bool) -> None:
        self._directory = directory
        self._groups = groups
        self._ledger = ledger
        self._few_prekeys = few_prekeys
        self._handlers: Mapping[tuple[str, str, str], Handler] = {
            ("encrypt", "get", "count"): self._count_prekeys,
            ("encrypt", "set", "registration"): self._store_prekeys,
            ("encrypt", "get", "key"): self._give_prekeys,
            ("passive", "set", "active"): self._activate,
            ("passive", "set", "passive"): _nothing,
            ("w:p", "get", ""): _nothing,
            ("usync", "get", "usync"): self._usync,
            ("w:m", "set", "media_conn"): _media_hosts,
            ("privacy", "get", "privacy"): _privacy_settings,
            ("privacy", "set", "tokens"): _nothing,
            ("blocklist", "get", ""): _no_blocked,
            ("w:profile:picture", "get", "picture"): _no_picture,
            ("md", "set", "remove-companion-device"): self._log_out,
            ("w:sync:app:state", "set", "sync"): self._sync_app_state,
            ("w:g2", "get", "participating"): self._list_groups,
            ("w:g2", "get", "query"): self._show_group,
        }

    def answer(self, device: Companion, query: Node) -> Node:
        """Return the answer to a query. An unknown query is logged and gets an empty result."""
        child = query.children[0].tag if query.children else ""
        key = (query.text("xmlns"), query.text("type"), child)
        handler = self._handlers.get(key)
        if handler is None:
            if self._ledger.note_unknown("iq/" + "/".join(key)):
                log.warning("unknown query %s, answered with an empty result", "/".join(key))
            handler = _nothing
        try:
            return _reply(query, "result", handler(device, query))
        except QueryFailed as failure:
            return refused(query, failure)

    # --- prekeys

    def _count_prekeys(self, device: Companion, _query: Node) -> list[Node]:
        # "1" is also too few, but makes a new client upload 50 keys instead of 812.
        count = len(device.shelf.one_time)
        return [node("count", {"value": max(count, 1) if self._few_prekeys else count})]

    def _store_prekeys(self, device: Companion, query: Node) -> list[Node]:
        shelf = device.shelf
        for part in query.children:
            if part.tag == "registration":
                shelf.registration_id = int.from_bytes(part.data, "big")
            elif part.tag == "identity":
                shelf.identity = part.data
            elif part.tag == "skey":
                shelf.signed = read_prekey(part)
            elif part.tag == "list":
                keys = [read_prekey(key) for key in part.children]
                shelf.one_time.update((key.id, key) for key in keys)
        return []

    def _give_prekeys(self, _device: Companion, query: Node) -> list[Node]:
        asked = [user.jid("jid") for key in query.find_all("key") for user in key.children]
        return [node("list", {}, *(self._prekeys_of(jid) for jid in asked if jid is not None))]

    def _prekeys_of(self, jid: Jid) -> Node:
        device = self._directory.device(jid)
        if device is None:
            return node("user", {"jid": jid}, node("error", {"code": 404, "text": "item-not-found"}))
        return node("user", {"jid": jid, "t": int(time.time())}, *_bundle(device.bundle()))

    # --- the device itself

    def _activate(self, device: Companion, _query: Node) -> list[Node]:
        phone = device.account.devices[Phone.number]
        if not device.is_activated and isinstance(phone, Phone) and phone.is_on:
            device.is_activated = True
            phone.share_app_state(device)
        return []

    def _log_out(self, device: Companion, query: Node) -> list[Node]:
        for part in query.find_all("remove-companion-device"):
            removed = self._directory.device(part.jid("jid"))
            if isinstance(removed, Companion) and removed.account is device.account:
                self._directory.unlink(removed, part.text("reason") or "logged out by itself")
        return []

    def _sync_app_state(self, device: Companion, query: Node) -> list[Node]:
        sync = query.find("sync")
        asked = list(sync.find_all("collection")) if sync else []
        return [node("sync", {}, *(self._collection(device.account, collection) for collection in asked))]

    def _collection(self, account: Account, asked: Node) -> Node:
        phone = account.devices[Phone.number]
        name, version = asked.text("name"), int(asked.text("version") or 0)
        patches = phone.app_state.patches_after(name, version) if isinstance(phone, Phone) else []
        attrs: Attrs = {"name": name, "version": version + len(patches), "has_more_patches": "false"}
        if not patches:
            return node("collection", attrs)
        return node("collection", attrs, node("patches", {}, *(node("patch", {}, patch) for patch in patches)))

    # --- accounts and their devices

    def _usync(self, _device: Companion, query: Node) -> list[Node]:
        usync = query.find("usync") or Node("usync")
        asked = usync.find("list") or Node("list")
        wanted = {part.tag for part in (usync.find("query") or Node("query")).children}
        users = [self._user(user, wanted) for user in asked.children]
        kept: Attrs = {name: usync.text(name) for name in ("sid", "mode", "context", "index", "last")}
        return [node("usync", kept, node("list", {}, *users))]

    def _user(self, asked: Node, wanted: set[str]) -> Node:
        contact = asked.find("contact")
        if contact is not None:
            return self._contact(contact)
        jid = asked.jid("jid") or Jid("")
        account = self._directory.account(jid)
        if account is None:
            return node(
                "user", {"jid": jid}, *([node("devices", {}, node("device-list"))] if "devices" in wanted else [])
            )
        parts = []
        if "devices" in wanted:
            parts.append(_devices_of(account))
        if "lid" in wanted or jid.server != LID_SERVER:
            parts.append(node("lid", {"val": account.lid_jid()}))
        if "status" in wanted:
            parts.append(node("status", {"t": 0}, b""))
        return node("user", {"jid": jid}, *parts)

    def _contact(self, contact: Node) -> Node:
        """Return whether a phone number is on WhatsApp."""
        number = contact.data.decode(errors="replace").partition("@")[0].lstrip("+")
        account = self._directory.by_pn(number)
        if account is None:
            return node("user", {"jid": Jid(number)}, node("contact", {"type": "out"}, contact.data))
        return node(
            "user",
            {"jid": account.lid_jid(), "pn_jid": account.pn_jid()},
            node("contact", {"type": "in"}, contact.data),
            _devices_of(account),
            node("lid", {"val": account.lid_jid()}),
        )

    # --- groups

    def _list_groups(self, device: Companion, _query: Node) -> list[Node]:
        return [node("groups", {}, *(group.stanza() for group in self._groups.of(device.account)))]

    def _show_group(self, device: Companion, query: Node) -> list[Node]:
        return [self._group_of(device, query).stanza()]

    def _group_of(self, device: Companion, query: Node) -> Group:
        group = self._groups.find(query.jid("to"))
        if group is None:
            raise QueryFailed(404, "item-not-found")
        if device.account not in group.members:
            raise QueryFailed(403, "forbidden")
        return group


def refused(query: Node, failure: QueryFailed) -> Node:
    """Return the answer to a query that failed."""
    return _reply(query, "error", [failure.answer])


def _reply(query: Node, kind: str, content: list[Node]) -> Node:
    attrs: Attrs = {"from": SERVER, "type": kind, "id": query.text("id")}
    return node("iq", attrs, *content)


def _devices_of(account: Account) -> Node:
    listed = [node("device", {"id": number, "key-index": number or None}) for number in sorted(account.devices)]
    return node("devices", {}, node("device-list", {}, *listed), node("key-index-list", {"ts": int(time.time())}))


def _bundle(bundle: PreKeyBundle) -> list[Node]:
    return [registration_stanza(bundle.registration_id), *key_stanzas(bundle)]


def _nothing(_device: Companion, _query: Node) -> list[Node]:
    return []


def _no_blocked(_device: Companion, _query: Node) -> list[Node]:
    return [node("list")]


def _no_picture(_device: Companion, _query: Node) -> list[Node]:
    raise QueryFailed(404, "item-not-found")


def _privacy_settings(_device: Companion, _query: Node) -> list[Node]:
    return [node("privacy", {}, *(node("category", {"name": name, "value": "all"}) for name in _PRIVACY))]


def _media_hosts(_device: Companion, _query: Node) -> list[Node]:
    attrs: Attrs = {"auth": secrets.token_hex(16), "ttl": 3600, "auth_ttl": 3600, "max_buckets": 12}
    return [node("media_conn", attrs, node("host", {"hostname": "mmg.whatsapp.net"}))]
