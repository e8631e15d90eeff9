"""Notifies linked devices of what has changed."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.accounts import Account, Device, Directory
from simulator.binary_xml import Node
from simulator.jid import SERVER
from simulator.stanzas import notification


def announce(stanza: Node, to: Iterable[Account], besides: Device | None = None) -> None:
    """Send a notification to the linked devices of accounts, except the device that made the change."""
    for account in to:
        for device in account.companions:
            if device is not besides:
                device.receive(stanza)


def announce_to_own(asking: Device, change: Node) -> None:
    """Notify the other linked devices of an account of a change of its settings."""
    own = notification("account_sync", asking.account.lid_jid(), change)
    announce(own, [asking.account], besides=asking)


def announce_to_acquaintances(directory: Directory, asking: Device, stanza: Node, setting: str) -> None:
    """Notify the other own devices, and those people who have this person as a contact and may see the change."""
    owner = asking.account
    acquainted = (it for it in directory.accounts if owner.pn in it.profile.contacts and owner.shows(setting, it))
    announce(stanza, [owner, *acquainted], besides=asking)


def announce_app_state(asking: Device, collection: str, version: int) -> None:
    """Have the other linked devices of an account fetch a collection of its app state."""
    changed = Node("collection", {"name": collection, "version": str(version)})
    announce(notification("server_sync", SERVER, changed), [asking.account], besides=asking)
