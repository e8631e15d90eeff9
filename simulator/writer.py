"""Implements the writing side of a phone: encrypts for every recipient device, and again for one that asks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from simulator.accounts import Account
from simulator.binary_xml import Attrs, Node, node
from simulator.bundles import bundle_in_retry
from simulator.groups import Group
from simulator.inbox import MOST_RETRIES
from simulator.jid import Jid
from simulator.letters import Letter, edit_letter
from simulator.network import Addressee, Network, address_of, name_of
from simulator.outbox import Outbox, Receipt, SentMessage, new_message_id
from simulator.ratchet import SignalError
from simulator.schemas import Composed, Content, DeviceSent, SenderKeyDistribution
from simulator.signal_state import Peer, SignalState

log = logging.getLogger(__name__)

_PHONE = 0
#: Seals content that is no letter without changes.
_PLAIN = Letter(b"")


class Writer:
    """Writes messages to people, to groups, and to the account's linked devices."""

    def __init__(
        self, account: Account, signal: SignalState, network: Network, outbox: Outbox, send: Callable[[Node], None]
    ) -> None:
        self._account = account
        self._signal = signal
        self._network = network
        self._outbox = outbox
        self._send = send

    def write(self, to: Addressee, letter: Letter, text: str = "", *, begin_anew: bool = False) -> SentMessage:
        """Write to all recipient devices; with `begin_anew` in new sessions or with a new sender key."""
        if begin_anew:
            self._begin_anew(to)
        message = self._outbox.add(name_of(to), letter, text)
        self._dispatch(to, message, [self._account] if to is not self._account else [])
        return message

    def edit(self, message: SentMessage, text: str) -> SentMessage | None:
        """Send an edit of a message. Return None if the recipient no longer exists."""
        to = self._network.addressee(message.to)
        return self.write(to, edit_letter(str(address_of(to)), message.id, text), text) if to is not None else None

    def repeat(self, message: SentMessage) -> None:
        """Send a message again to the devices of its addressee, encrypted anew."""
        to = self._network.addressee(message.to)
        if to is not None:
            self._dispatch(to, message, [])

    def send_to_companion(self, number: int, content: Content) -> None:
        """Send content to one linked device of this account."""
        part = self._part((self._account, number), content, _PLAIN)
        if part is not None:
            about: Attrs = {
                "to": self._account.lid_jid(number),
                "id": new_message_id(),
                "type": "text",
                "category": "peer",
            }
            self._send(node("message", about, node("participants", {}, part)))

    def hear(self, receipt: Node) -> None:
        """Process a receipt, and resend the message if its device could not read it."""
        source = receipt.jid("participant") or receipt.jid("from")
        reader = self._network.directory.account(source)
        if source is None or reader is None:
            return
        kind = receipt.text("type") or "delivered"
        listed = receipt.find("list")
        for message_id in (receipt.text("id"), *(item.text("id") for item in (listed.children if listed else []))):
            message = self._outbox.find(message_id)
            if message is None:
                continue
            message.receipts.append(Receipt(str(reader.pn_jid(source.device)), kind, time.time()))
            if kind == "retry":
                self._write_again(message, reader, source, receipt)

    # --- to all recipient devices

    def _dispatch(self, to: Addressee, message: SentMessage, copies: list[Account]) -> None:
        """Send a message. The linked devices of `copies` get it as a message written by this account."""
        letter = message.letter
        if isinstance(to, Group):
            parts, shared = self._announcements(to), [self._for_group(to, letter)]
        else:
            parts, shared = self._for_person(to, letter, copies), []
        about: Attrs = {"to": address_of(to), "id": message.id, **letter.attributes}
        self._send(node("message", about, node("participants", {}, *parts), *shared))

    def _for_person(self, to: Account, letter: Letter, copies: list[Account]) -> list[Node]:
        copy = self._copy(to, letter.message)
        parts = [self._part((to, number), letter.message, letter) for number in list(to.devices)]
        parts += [self._part((owner, device.number), copy, letter) for owner in copies for device in owner.companions]
        return [part for part in parts if part is not None]

    def _for_group(self, group: Group, letter: Letter) -> Node:
        return letter.sealed("skmsg", self._signal.groups.encrypt(str(group.jid), letter.message))

    def _announcements(self, group: Group) -> list[Node]:
        """Return an announcement of this phone's sender key for each device of the group that lacks it."""
        name = str(group.jid)
        owners = {(member.pn, number): member for member in group.members for number in list(member.devices)}
        owners.pop((self._account.pn, _PHONE), None)
        parts = [
            self._part((owners[peer], peer[1]), self._announcement(name, peer), _PLAIN)
            for peer in self._signal.groups.without_key(name, owners)
        ]
        return [part for part in parts if part is not None]

    def _announcement(self, group: str, peer: Peer) -> Content:
        return Content(sender_key=SenderKeyDistribution(group, self._signal.groups.announce(group, peer)))

    def _part(self, device: tuple[Account, int], content: Content, letter: Letter) -> Node | None:
        """Return the part for one device (<to>); None for this phone and for a device without prekeys."""
        owner, number = device
        if owner is self._account and number == _PHONE:
            return None
        encrypted = self._signal.pairs.encrypt((owner.pn, number), content)
        return node("to", {"jid": owner.lid_jid(number)}, letter.sealed(*encrypted)) if encrypted is not None else None

    def _begin_anew(self, to: Addressee) -> None:
        if isinstance(to, Group):
            self._signal.groups.begin_anew(str(to.jid))
            return
        for number in to.devices:
            self._signal.pairs.begin_anew((to.pn, number))

    def _copy(self, to: Account, content: Content) -> Content:
        """Return a message in the form for this account's own devices."""
        return Content(device_sent=DeviceSent(str(to.lid_jid()), content))

    # --- to one device that asked again

    def _write_again(self, message: SentMessage, reader: Account, device: Jid, receipt: Node) -> None:
        """Begin a new session with a device and send a message only to it."""
        retry, peer, to = receipt.find("retry"), (reader.pn, device.device), self._network.addressee(message.to)
        count = int(retry.text("count") or 1) if retry else 1
        if to is None or count > MOST_RETRIES or not self._renew(peer, receipt):
            return
        encrypted = self._signal.pairs.encrypt(peer, self._content_for(peer, to, message.letter))
        if encrypted is None:
            return
        if isinstance(to, Group):
            about: Attrs = {"to": to.jid, "participant": device}
        else:
            about = {"to": device, "recipient": to.lid_jid() if reader is self._account else None}
        part = message.letter.sealed_again(*encrypted, count)
        self._send(node("message", {**about, "id": message.id, **message.letter.attributes}, part))

    def _renew(self, peer: Peer, receipt: Node) -> bool:
        """Begin a session with the keys in a receipt, or else with keys from the server."""
        try:
            if self._signal.pairs.begin_anew(peer, bundle_in_retry(receipt)):
                return True
        except (SignalError, ValueError) as error:
            log.warning("%s asks again with keys that do not work: %s", peer, error)
            return self._signal.pairs.begin_anew(peer)
        return False

    def _content_for(self, peer: Peer, to: Addressee, letter: Letter) -> Content:
        if isinstance(to, Group):
            # Two concatenated serialised messages are one message with the fields of both.
            return Composed(self._announcement(str(to.jid), peer).encode() + letter.content)
        return self._copy(to, letter.message) if peer[0] == self._account.pn else letter.message
