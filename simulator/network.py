"""Gives a phone access to all accounts and groups, and to the faults of the test."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.accounts import Account, Directory
from simulator.faults import Faults
from simulator.groups import Group, Groups
from simulator.jid import GROUP_SERVER, Jid
from simulator.prekeys import PreKeyBundle
from simulator.router import Router
from simulator.signal_state import Peer

#: The recipient of a message.
Addressee = Account | Group


@dataclass(frozen=True)
class Network:
    """The server's side of a phone."""

    directory: Directory
    groups: Groups
    router: Router
    faults: Faults

    def addressee(self, name: str) -> Addressee | None:
        """Return the account of a phone number or the group at an address; None if there is none."""
        if name.endswith("@" + GROUP_SERVER):
            return self.groups.find(Jid.parse(name))
        return self.directory.by_pn(name)

    def bundle(self, peer: Peer) -> PreKeyBundle | None:
        """Return the prekeys that a device has uploaded; None if the device does not exist."""
        account = self.directory.by_pn(peer[0])
        device = account.devices.get(peer[1]) if account else None
        return device.bundle() if device else None


def name_of(addressee: Addressee) -> str:
    """Return the phone number of an account, or the address of a group."""
    return addressee.pn if isinstance(addressee, Account) else str(addressee.jid)


def address_of(addressee: Addressee) -> Jid:
    """Return the address for messages to it."""
    return addressee.lid_jid() if isinstance(addressee, Account) else addressee.jid
