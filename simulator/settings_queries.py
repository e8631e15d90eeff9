"""Answers queries about a person's settings: privacy, blocked people, disappearing messages, audience of the status."""

from __future__ import annotations

import hashlib

from simulator.accounts import Account, Device, Directory
from simulator.announcing import announce_to_own
from simulator.answers import Handlers, bad_request
from simulator.binary_xml import Node, node
from simulator.jid import LID_SERVER, Jid
from simulator.profiles import PRIVACY

#: Seconds after which WhatsApp lets messages disappear; 0 is never.
TIMERS = frozenset({"0", "86400", "604800", "7776000"})


class SettingsQueries:
    """Handlers of the namespaces privacy, blocklist, disappearing_mode and status."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("privacy", "get", "privacy"): _show_privacy,
            ("privacy", "set", "privacy"): _set_privacy,
            ("privacy", "set", "tokens"): _take_tokens,
            ("blocklist", "get", ""): self._show_blocked,
            ("blocklist", "set", "item"): self._block,
            ("disappearing_mode", "set", "disappearing_mode"): _set_disappearing,
            ("status", "get", "privacy"): _show_audience,
        }

    # --- blocked people

    def _show_blocked(self, asking: Device, _query: Node) -> list[Node]:
        return [self._blocked(asking.account)]

    def _block(self, asking: Device, query: Node) -> list[Node]:
        item = query.find("item") or Node("item")
        action, account = item.text("action"), self._directory.account(item.jid("jid"))
        blocked = asking.account.profile.blocked
        if account is None or account is asking.account or action not in ("block", "unblock"):
            raise bad_request()
        if action == "unblock" and account.lid not in blocked:
            raise bad_request()
        if action == "block":
            blocked[account.lid] = None
        else:
            del blocked[account.lid]
        answer = self._blocked(asking.account)
        change = node("item", {"jid": account.lid_jid(), "action": action})
        announce_to_own(asking, node("blocklist", {"dhash": answer.text("dhash")}, change))
        return [answer]

    def _blocked(self, account: Account) -> Node:
        lids = list(account.profile.blocked)
        digest = hashlib.sha256(",".join(sorted(lids)).encode()).hexdigest()[:32]
        return node("list", {"dhash": digest}, *(node("item", {"jid": Jid(lid, LID_SERVER)}) for lid in lids))


# --- privacy


def _show_privacy(asking: Device, _query: Node) -> list[Node]:
    return [_privacy(asking.account)]


def _set_privacy(asking: Device, query: Node) -> list[Node]:
    wanted = query.find("privacy") or Node("privacy")
    changes = {category.text("name"): category.text("value") for category in wanted.find_all("category")}
    if not changes or any(value not in PRIVACY.get(name, ()) for name, value in changes.items()):
        raise bad_request()
    asking.account.profile.privacy.update(changes)
    announce_to_own(asking, wanted)
    return [_privacy(asking.account)]


def _privacy(account: Account) -> Node:
    settings = account.profile.privacy.items()
    return node("privacy", {}, *(node("category", {"name": name, "value": value}) for name, value in settings))


def _take_tokens(_asking: Device, _query: Node) -> list[Node]:
    return []


def _show_audience(_asking: Device, _query: Node) -> list[Node]:
    return [node("privacy", {}, node("list", {"type": "contacts", "default": "true"}))]


# --- disappearing messages


def _set_disappearing(asking: Device, query: Node) -> list[Node]:
    wanted = query.find("disappearing_mode") or Node("disappearing_mode")
    if wanted.text("duration") not in TIMERS:
        raise bad_request()
    profile = asking.account.profile
    profile.set_disappearing(int(wanted.text("duration")))
    about = {"duration": profile.disappearing, "t": profile.disappearing_set_at}
    announce_to_own(asking, node("disappearing_mode", about))
    return []
