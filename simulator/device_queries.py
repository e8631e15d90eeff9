"""Answers the queries of linked devices about themselves: prekeys, activation, logout, app state."""

from __future__ import annotations

import time

from simulator.accounts import Companion, Directory
from simulator.announcing import announce_app_state
from simulator.answers import CompanionHandlers, QueryFailed, bad_request, conflict
from simulator.binary_xml import Attrs, Node, node
from simulator.bookkeeping import Ledger
from simulator.bundles import key_stanzas, read_prekey, registration_stanza
from simulator.jid import Jid
from simulator.phone import Phone
from simulator.prekeys import PreKeyBundle


class DeviceQueries:
    """Handlers of the namespaces encrypt, passive, md and w:sync:app:state."""

    def __init__(self, directory: Directory, ledger: Ledger, *, few_prekeys: bool) -> None:
        self._directory = directory
        self._ledger = ledger
        self._few_prekeys = few_prekeys

    def handlers(self) -> CompanionHandlers:
        """Return the handlers."""
        return {
            ("encrypt", "get", "count"): self._count_prekeys,
            ("encrypt", "set", "registration"): self._store_prekeys,
            ("encrypt", "get", "key"): self._give_prekeys,
            ("passive", "set", "active"): self._activate,
            ("passive", "set", "passive"): _nothing,
            ("md", "set", "remove-companion-device"): self._log_out,
            ("w:sync:app:state", "set", "sync"): self._sync_app_state,
        }

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
        return [node("sync", {}, *(self._collection(device, collection) for collection in asked))]

    def _collection(self, device: Companion, asked: Node) -> Node:
        """Take the client's patch of a collection, or return the patches that the client lacks."""
        phone = device.account.devices[Phone.number]
        name, version, patch = asked.text("name"), int(asked.text("version") or 0), asked.find("patch")
        if not name:
            self._ledger.note_unknown("app-state/collection-without-name")
            return _refused_collection(asked, bad_request())
        if not isinstance(phone, Phone):
            raise TypeError("an account has a phone")
        if patch is not None and not phone.app_state.append(name, version, patch.data):
            return _refused_collection(asked, conflict(), *_patches(phone.app_state.patches_after(name, version)))
        if patch is not None:
            device.account.push_name = phone.app_state.push_name
            announce_app_state(device, name, version + 1)
            return node("collection", {"name": name, "version": version + 1})
        patches = phone.app_state.patches_after(name, version)
        attrs: Attrs = {"name": name, "version": version + len(patches), "has_more_patches": "false"}
        return node("collection", attrs, *_patches(patches))


def _refused_collection(asked: Node, failure: QueryFailed, *patches: Node) -> Node:
    return node("collection", {"name": asked.text("name") or None, "type": "error"}, failure.answer, *patches)


def _patches(patches: list[bytes]) -> list[Node]:
    """Return the <patches> of a collection, or nothing if there are none."""
    return [node("patches", {}, *(node("patch", {}, patch) for patch in patches))] if patches else []


def _bundle(bundle: PreKeyBundle) -> list[Node]:
    return [registration_stanza(bundle.registration_id), *key_stanzas(bundle)]


def _nothing(_device: Companion, _query: Node) -> list[Node]:
    return []
