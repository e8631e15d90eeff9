"""Implements the reading side of a phone: decrypts messages, sends receipts, and asks again for unreadable ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from simulator.accounts import Account
from simulator.binary_xml import Attrs, Node, node
from simulator.bundles import key_stanzas, registration_stanza
from simulator.groups import Group
from simulator.inbox import Inbox, InboxMessage, unread
from simulator.jid import Jid
from simulator.network import Network
from simulator.ratchet import SignalError
from simulator.schemas import Content
from simulator.signal_state import Peer, SignalState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Incoming:
    """A message stanza with its author and chat."""

    stanza: Node
    sender: Account
    #: the address of the device that sent it
    source: Jid
    group: Group | None

    @property
    def id(self) -> str:
        return self.stanza.text("id")

    @property
    def peer(self) -> Peer:
        return self.sender.pn, self.source.device

    @property
    def chat(self) -> str:
        """The group, or the phone number of the author."""
        return str(self.group.jid) if self.group else self.sender.pn

    @property
    def retry_count(self) -> int:
        """Number of retries that the message answers."""
        return max((int(part.text("count") or 0) for part in self.stanza.find_all("enc")), default=0)

    def answer(self, kind: str | None, *content: Node, **more: Jid | None) -> Node:
        """Return a receipt for the message."""
        to: Attrs = {"to": self.group.jid, "participant": self.source} if self.group else {"to": self.source}
        return node("receipt", {**to, "id": self.id, "type": kind, **more}, *content)


class Reader:
    """Reads the messages that reach a phone."""

    def __init__(
        self, account: Account, signal: SignalState, network: Network, inbox: Inbox, send: Callable[[Node], None]
    ) -> None:
        self._account = account
        self._signal = signal
        self._network = network
        self._inbox = inbox
        self._send = send
        self.sends_read_receipts = False

    def read(self, stanza: Node) -> None:
        """Process a message and send a receipt for it."""
        source = stanza.jid("participant") or stanza.jid("from")
        sender = self._network.directory.account(source)
        encrypted = list(stanza.find_all("enc"))
        if source is None or sender is None or not encrypted:
            return
        message = _Incoming(stanza, sender, source, self._network.groups.find(stanza.jid("from")))
        self._suffer(message)
        group = str(message.group.jid) if message.group else ""
        try:
            contents = [self._signal.decrypt(message.peer, group, part) for part in encrypted]
        except SignalError as error:
            log.info("%s cannot read message %s from %s: %s", self._account.pn, message.id, source, error)
            self._ask_again(message)
            return
        retries = self._inbox.read((sender.pn, message.id))
        for content in contents:
            self._show(message, content, retries)
        self._confirm(message)

    def mark_read(self, message_id: str) -> bool:
        """Send a read receipt for a message. Return False if there is no such message."""
        message = self._inbox.find(message_id)
        sender = self._network.directory.by_pn(message.sender) if message is not None else None
        if message is None or sender is None:
            return False
        source = sender.lid_jid(message.sender_device)
        group = self._network.groups.find(Jid.parse(message.to)) if "@" in message.to else None
        self._send(_Incoming(Node("message", {"id": message_id}), sender, source, group).answer("read"))
        return True

    def _suffer(self, message: _Incoming) -> None:
        """Damage the phone's keys as the test has set."""
        damage = self._network.faults.damage(self._account.pn, _names(message))
        if damage is not None:
            self._signal.strike(message.peer, damage, message.stanza)

    def _show(self, message: _Incoming, content: Content, retries: int) -> None:
        to = message.chat if message.group else self._account.pn
        if content.device_sent is not None:
            destination = self._network.directory.account(Jid.parse(content.device_sent.destination or ""))
            to = destination.pn if destination else ""
            content = content.device_sent.message or Content()
        edit = content.edit
        if edit is not None and edit.key is not None and edit.edited is not None:
            self._inbox.edit((message.sender.pn, edit.key.id or ""), edit.edited.text or "")
        if content.text is not None:
            sender, device = message.peer
            shown = InboxMessage(message.id, sender, device, to, content.text, time.time(), retries=retries)
            self._inbox.keep(shown)

    def _confirm(self, message: _Incoming) -> None:
        if message.sender is self._account:
            self._send(message.answer("sender"))
            return
        self._send(message.answer(None))
        if self.sends_read_receipts:
            self._send(message.answer("read"))

    def _ask_again(self, message: _Incoming) -> None:
        """Ask the sender for the message, with keys for a new session if the existing one did not work."""
        sender, device = message.peer
        count = self._inbox.miss(unread(message.id, sender, device, message.chat), message.retry_count)
        if count is None:
            return
        bundle = self._signal.keys.bundle()
        retry = node("retry", {"count": count, "id": message.id, "t": message.stanza.text("t"), "v": 1})
        needs_keys = count > 1 or not self._signal.pairs.knows(message.peer)
        keys = [node("keys", {}, *key_stanzas(bundle))] if needs_keys else []
        content = [retry, registration_stanza(bundle.registration_id), *keys]
        self._send(message.answer("retry", *content, recipient=message.stanza.jid("recipient")))


def _names(message: _Incoming) -> frozenset[str]:
    """Return the names of the sending device."""
    sender, device = message.sender, message.source.device
    return frozenset({sender.pn, str(sender.pn_jid(device)), str(sender.lid_jid(device))})
