"""Routes messages to each device they are encrypted for, and receipts back to the sender."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator

from simulator.accounts import Account, Companion, Device, Directory
from simulator.binary_xml import Attrs, Node, node
from simulator.groups import Group, Groups
from simulator.jid import GROUP_SERVER, Jid

log = logging.getLogger(__name__)

#: Receipts that concern every device of their addressee, not only the one that sent the message.
_FOR_ALL_DEVICES = frozenset({"read", "played"})
_SEALED = frozenset({"enc", "unavailable"})
_FORBIDDEN, _NOT_FOUND = 403, 404


class Router:
    """Decides which devices get a stanza. The devices deliver it."""

    def __init__(self, directory: Directory, groups: Groups) -> None:
        self._directory = directory
        self._groups = groups

    def message(self, sender: Device, stanza: Node) -> Attrs:
        """Deliver a message. Return the extra attributes of its acknowledgement.

        These are an error, or a hash of the right devices if the message was not encrypted for exactly those.
        """
        to = stanza.jid("to")
        if to is not None and to.server == GROUP_SERVER:
            return self._to_group(sender, stanza, to)
        recipient = self._directory.account(to)
        if to is None or recipient is None:
            log.info("message from %s to unknown address %s", sender.account.pn, to)
            return {}
        participants = stanza.find("participants")
        if participants is None:
            asked = self._directory.account(stanza.jid("recipient")) or recipient
            self._deliver(sender, stanza, self._directory.device(to), asked, list(stanza.find_all("enc")))
            return {}
        parts = _parts(participants)
        for address, encrypted in parts.items():
            self._deliver(sender, stanza, self._directory.device(address), recipient, encrypted)
        concerned = set(_devices((recipient, sender.account)))
        reached = {self._directory.device(address) for address in parts} | {sender}
        is_complete = all(device in reached for device in concerned if isinstance(device, Companion))
        return {} if is_complete else {"phash": _hash(concerned)}

    def receipt(self, sender: Device, receipt: Node) -> None:
        """Relay a receipt to the device that wrote the message, or to all devices of its account."""
        group = self._groups.find(receipt.jid("to"))
        to = receipt.jid("participant") if group else receipt.jid("to")
        account = self._directory.account(to)
        if to is None or account is None:
            return
        kind, source = receipt.text("type"), sender.account.lid_jid(sender.number)
        about: Attrs = {
            "from": group.jid if group else source,
            "participant": source if group else None,
            "participant_pn": sender.account.pn_jid() if group else None,
            "recipient": receipt.jid("recipient"),
            "id": receipt.text("id"),
            "t": int(time.time()),
            "type": kind or None,
        }
        relayed = node("receipt", about, *receipt.children)
        to_all = to.device == 0 and kind in _FOR_ALL_DEVICES
        for number in list(account.devices) if to_all else [to.device]:
            device = account.devices.get(number)
            if device is not None and device is not sender:
                device.receive(relayed)

    # --- groups

    def _to_group(self, sender: Device, stanza: Node, to: Jid) -> Attrs:
        group = self._groups.find(to)
        if group is None or not group.may_write(sender.account):
            log.info("message from %s to %s, where it may not write", sender.account.pn, to)
            return {"error": _NOT_FOUND if group is None else _FORBIDDEN}
        shared = [part for part in stanza.children if part.tag in _SEALED]
        asking = stanza.jid("participant")
        if asking is not None:
            self._deliver_in(group, sender, stanza, self._directory.device(asking), shared)
            return {}
        parts = _parts(stanza.find("participants") or Node("participants"))
        for device in group.devices:
            own = parts.get(device.account.lid_jid(device.number), [])
            self._deliver_in(group, sender, stanza, device, [*own, *shared])
        expected = _hash(group.devices) if stanza.text("phash") else ""
        return {} if stanza.text("phash") == expected else {"phash": expected}

    def _deliver_in(
        self, group: Group, sender: Device, stanza: Node, device: Device | None, encrypted: list[Node]
    ) -> None:
        whose = {"from": group.jid, **sender.account.author(sender.number, "participant", "participant")}
        self._hand_over(sender, stanza, device, whose, encrypted)

    # --- one device

    def _deliver(
        self, sender: Device, stanza: Node, device: Device | None, recipient: Account, encrypted: list[Node]
    ) -> None:
        """Deliver a message between people. The sender's devices get its recipient, other devices its author."""
        if device is None or sender.account.lid in device.account.profile.blocked:
            return  # the sender does not hear of it
        whose = sender.account.author(sender.number, "from", "sender")
        if device.account is sender.account:
            to: Attrs = {"recipient": recipient.lid_jid(), "peer_recipient_pn": recipient.pn_jid()}
            whose = {"from": sender.account.lid_jid(sender.number), **to}
        self._hand_over(sender, stanza, device, whose, encrypted)

    def _hand_over(
        self, sender: Device, stanza: Node, device: Device | None, whose: Attrs, encrypted: list[Node]
    ) -> None:
        if device is None or device is sender or not encrypted:
            return
        about: Attrs = {
            "addressing_mode": "lid",
            **whose,
            "id": stanza.text("id"),
            "type": stanza.text("type") or "text",
            "t": int(time.time()) + sender.account.seconds_ahead,
            "notify": sender.account.push_name,
            "category": stanza.text("category") or None,
            "edit": stanza.text("edit") or None,
        }
        identity = stanza.find("device-identity")
        device.receive(node("message", about, *encrypted, *([identity] if identity else [])))


def _parts(participants: Node) -> dict[Jid, list[Node]]:
    """Return the parts for single devices, by address."""
    addressed = ((part.jid("jid"), part.children) for part in participants.find_all("to"))
    return {address: children for address, children in addressed if address is not None}


def _devices(accounts: Iterable[Account]) -> Iterator[Device]:
    return (device for account in accounts for device in account.devices.values())


def _hash(devices: Iterable[Device]) -> str:
    """Return the hash of a list of devices, as clients compute it for the devices they encrypt for."""
    addresses = sorted(f"{device.account.lid}.0:{device.number}@lid" for device in devices)
    return "2:" + base64.b64encode(hashlib.sha256("".join(addresses).encode()).digest()[:6]).decode().rstrip("=")
