"""Holds who is available, and relays presence and typing to those who may see it. Nothing here is kept for later."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from simulator.accounts import Account, Companion, Device, Directory
from simulator.binary_xml import Attrs, Node, node
from simulator.groups import Groups
from simulator.jid import GROUP_SERVER, Jid
from simulator.phone import Phone
from simulator.stanzas import presence

_MOST_TYPINGS = 1_000


@dataclass(frozen=True)
class Typing:
    """A typing state that reached a phone: composing or paused, with audio for a voice message."""

    sender: Account
    #: address of the group, or the sender's phone number
    chat: str
    state: str
    media: str
    at: float


@dataclass
class _Seen:
    """One account: its devices that are available, and what its phone has seen."""

    available: set[Device] = field(default_factory=set)
    last_seen_at: int | None = None
    #: linked devices of others that have asked for the presence, until they disconnect
    subscribers: set[Companion] = field(default_factory=set)
    typings: deque[Typing] = field(default_factory=lambda: deque(maxlen=_MOST_TYPINGS))


class Presences:
    """The presence of all accounts."""

    def __init__(self, directory: Directory, groups: Groups) -> None:
        self._directory = directory
        self._groups = groups
        self._seen: dict[Account, _Seen] = {}
        self._subscriptions: dict[Companion, set[Account]] = {}

    # --- what a client sends

    def take(self, device: Companion, stanza: Node) -> None:
        """Process a client's <presence>."""
        kind = stanza.text("type")
        if kind == "subscribe":
            self._subscribe(device, stanza.jid("to"))
        elif kind in ("", "available", "unavailable"):
            self.set_available(device, is_available=kind != "unavailable")

    def type(self, device: Device, stanza: Node) -> None:
        """Relay a <chatstate> to the addressee's devices that are available, if the sender may write there."""
        to, state = stanza.jid("to"), stanza.children[0] if stanza.children else Node("")
        if to is None or state.tag not in ("composing", "paused"):
            return
        sender = device.account
        if to.server == GROUP_SERVER:
            group = self._groups.find(to)
            if group is not None and sender in group.ranks:
                attrs: Attrs = {"from": group.jid, "participant": sender.lid_jid()}
                others = [member for member in group.members if member is not sender]
                self._relay(sender, others, node("chatstate", attrs, state), str(group.jid))
            return
        account = self._directory.account(to)
        if account is not None and account is not sender:
            self._relay(sender, [account], node("chatstate", {"from": sender.lid_jid()}, state), sender.pn)

    def disconnected(self, device: Companion) -> None:
        """End the subscriptions of a device, and its availability."""
        for account in self._subscriptions.pop(device, ()):
            self._of(account).subscribers.discard(device)
        self.set_available(device, is_available=False)

    # --- availability

    def set_available(self, device: Device, *, is_available: bool) -> None:
        """Set whether a device is available, and notify the subscribers if this changes the account."""
        seen = self._of(device.account)
        was_available = bool(seen.available)
        if is_available:
            seen.available.add(device)
        else:
            seen.available.discard(device)
        if was_available and not seen.available:
            seen.last_seen_at = int(time.time())
        if was_available != bool(seen.available):
            for subscriber in list(seen.subscribers):
                self._show(device.account, subscriber)

    def is_available(self, account: Account) -> bool:
        """Return whether any device of an account is available."""
        return bool(self._of(account).available)

    def last_seen_at(self, account: Account) -> int | None:
        """Return when an account was last available, in Unix seconds; None if never."""
        return self._of(account).last_seen_at

    def subscribers(self, account: Account) -> list[Companion]:
        """Return the devices that have asked for the presence of an account."""
        return list(self._of(account).subscribers)

    def typings(self, account: Account) -> list[Typing]:
        """Return the typing states that reached the phone of an account."""
        return list(self._of(account).typings)

    # --- delivery

    def _subscribe(self, device: Companion, to: Jid | None) -> None:
        """Subscribe a device. Nothing tells it whether the person exists."""
        account = self._directory.account(to)
        if account is None or account is device.account:
            return
        self._of(account).subscribers.add(device)
        self._subscriptions.setdefault(device, set()).add(account)
        self._show(account, device)

    def _show(self, account: Account, subscriber: Companion) -> None:
        """Send a subscriber the presence of an account. Who is not available, or may not see it, gets nothing."""
        viewer, seen = subscriber.account, self._of(account)
        if subscriber not in self._of(viewer).available:
            return
        sees_last = account.shows("last", viewer)
        follows = account.profile.privacy["online"] == "match_last_seen"
        if viewer.lid in account.profile.blocked or (follows and not sees_last):
            return
        if seen.available:
            subscriber.receive(presence(account.lid_jid()))
            return
        last = "deny" if not sees_last else seen.last_seen_at
        subscriber.receive(presence(account.lid_jid(), type="unavailable", last=last))

    def _relay(self, sender: Account, addressees: list[Account], stanza: Node, chat: str) -> None:
        state = stanza.children[0]
        for account in addressees:
            if sender.lid in account.profile.blocked:
                continue
            seen = self._of(account)
            for device in list(seen.available):
                device.receive(stanza)
                if device.number == Phone.number:
                    seen.typings.append(Typing(sender, chat, state.tag, state.text("media"), time.time()))

    def _of(self, account: Account) -> _Seen:
        return self._seen.setdefault(account, _Seen())
