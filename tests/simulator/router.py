"""From one device to the others: messages to each device they are encrypted for, receipts back to the sender."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from tests.simulator.accounts import Account, Companion, Device, Directory
from tests.simulator.binary_xml import Node, node
from tests.simulator.bookkeeping import Ledger
from tests.simulator.jid import Jid

log = logging.getLogger(__name__)

#: Receipts that concern every device of their addressee, not only the one that sent the message.
_FOR_ALL_DEVICES = frozenset({"read", "played"})


class Router:
    """Knows who gets which stanza; how it gets there is the device's business."""

    def __init__(self, directory: Directory, ledger: Ledger) -> None:
        self._directory = directory
        self._ledger = ledger

    def message(self, sender: Device, stanza: Node) -> bool:
        """Deliver a message; False if it was not encrypted for exactly the devices of its addressee and sender."""
        to = stanza.jid("to")
        recipient = self._directory.account(to)
        if to is None or recipient is None:
            log.info("message from %s to %s, whom nobody knows", sender.account.pn, to)
            return True
        participants = stanza.find("participants")
        if participants is None:
            self._deliver(sender, stanza, to, recipient.pn_jid(), list(stanza.find_all("enc")))
            return True
        reached = set()
        for part in participants.find_all("to"):
            address = part.jid("jid")
            if address is not None:
                reached.add(self._deliver(sender, stanza, address, recipient.pn_jid(), part.children))
        return self._everyone(sender, recipient) <= reached

    def receipt(self, sender: Device, receipt: Node) -> None:
        """Relay a receipt to the device that wrote the message, or to all devices of its account."""
        to = receipt.jid("to")
        account = self._directory.account(to)
        if to is None or account is None:
            return
        kind = receipt.text("type")
        to_all = to.device == 0 and kind in _FOR_ALL_DEVICES
        numbers = list(account.devices) if to_all else [to.device]
        relayed = node(
            "receipt",
            {
                "from": sender.account.lid_jid(sender.number),
                "id": receipt.text("id"),
                "t": int(time.time()),
                "type": kind or None,
            },
            *receipt.children,
        )
        for number in numbers:
            device = account.devices.get(number)
            if device is not None and device is not sender:
                device.receive(relayed)

    def _deliver(
        self, sender: Device, stanza: Node, address: Jid, recipient: Jid, encrypted: list[Node]
    ) -> Device | None:
        device = self._directory.device(address)
        if device is None or device is sender or not encrypted:
            return device
        identity = stanza.find("device-identity")
        attrs = {
            "from": sender.account.lid_jid(sender.number),
            "id": stanza.text("id"),
            "type": stanza.text("type") or "text",
            "t": int(time.time()),
            "notify": sender.account.push_name,
            "addressing_mode": "lid",
            "category": stanza.text("category") or None,
            "edit": stanza.text("edit") or None,
            **_whose(sender, device, recipient, self._directory),
        }
        device.receive(node("message", attrs, *encrypted, *([identity] if identity else [])))
        return device

    def _everyone(self, sender: Device, recipient: Account) -> set[Device | None]:
        """All linked devices that a message between these two has to be encrypted for."""
        accounts = {id(account): account for account in (recipient, sender.account)}.values()
        return {device for account in accounts for device in _linked(account) if device is not sender}


def _linked(account: Account) -> Iterator[Device]:
    return (device for device in account.devices.values() if isinstance(device, Companion))


def _whose(sender: Device, device: Device, recipient: Jid, directory: Directory) -> dict[str, Jid]:
    """A sender's own devices hear whom a message went to, all others whom it came from."""
    if device.account is not sender.account:
        return {"sender_pn": sender.account.pn_jid()}
    account = directory.account(recipient)
    return {"recipient": account.lid_jid(), "peer_recipient_pn": recipient} if account else {}
