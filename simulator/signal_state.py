"""Holds a phone's Signal state: its keys, its sessions with other devices, and the sender keys of groups."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from simulator.binary_xml import Node
from simulator.conversations import Conversations
from simulator.group_conversations import GroupConversations
from simulator.prekeys import KeyRing, PreKeyBundle
from simulator.schemas import Content

#: A device: its account's phone number and its number within the account.
Peer = tuple[str, int]


class Damage(StrEnum):
    """The kinds of damage to the state that a phone shares with another device."""

    LOST = "lost"  #: the sessions and sender keys are gone
    DAMAGED = "damaged"  #: they exist but cannot decrypt


class SignalState:
    """Pairwise sessions and sender keys of one phone."""

    def __init__(self, fetch: Callable[[Peer], PreKeyBundle | None]) -> None:
        self.keys = KeyRing()
        self.pairs: Conversations[Peer] = Conversations(self.keys, fetch)
        self.groups: GroupConversations[Peer] = GroupConversations()

    def decrypt(self, peer: Peer, group: str, encrypted: Node) -> Content:
        """Return the content of an <enc>, and store a sender key in it. Raise SignalError if it cannot be read."""
        if encrypted.text("type") == "skmsg":
            return self.groups.decrypt(group, peer, encrypted.data)
        content = self.pairs.decrypt(peer, encrypted.text("type"), encrypted.data)
        announced = content.sender_key
        if announced is not None and group == announced.group_id:
            self.groups.learn(group, peer, announced.announcement or b"")
        return content

    def strike(self, peer: Peer, damage: Damage, message: Node) -> None:
        """Delete or damage the keys shared with a device, so that this message of the device cannot be read."""
        if damage is Damage.LOST:
            self.pairs.forget(peer)
            self.groups.forget(peer)
        else:
            self.pairs.damage(peer)
            self.groups.damage(peer)
        for encrypted in message.find_all("enc"):
            if encrypted.text("type") == "pkmsg":
                self.pairs.use_up(encrypted.data)
