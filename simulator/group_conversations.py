"""Holds all sender keys of one phone: the phone's by group, those of other devices by group and device."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from simulator.padding import pad, unpad
from simulator.ratchet import SignalError
from simulator.schemas import Content
from simulator.sender_keys import AnnouncedSenderKeys, OwnSenderKey
from simulator.wire_format import WireError

Peer = TypeVar("Peer", bound=Hashable)


@dataclass
class _Own(Generic[Peer]):
    """This phone's sender key of a group, and the devices to which it was announced."""

    key: OwnSenderKey = field(default_factory=OwnSenderKey)
    holders: set[Peer] = field(default_factory=set)


class GroupConversations(Generic[Peer]):
    """Encrypts to and decrypts from groups; a peer is whatever names a device."""

    def __init__(self) -> None:
        self._own: dict[str, _Own[Peer]] = {}
        self._announced: dict[tuple[str, Peer], AnnouncedSenderKeys] = {}

    def begin_anew(self, group: str) -> None:
        """Make a new sender key for a group, which no device holds yet."""
        self._own[group] = _Own()

    def without_key(self, group: str, peers: Iterable[Peer]) -> list[Peer]:
        """Return those of these devices that do not hold this phone's sender key."""
        holders = self._own_in(group).holders
        return [peer for peer in peers if peer not in holders]

    def announce(self, group: str, peer: Peer) -> bytes:
        """Return the announcement of this phone's sender key for a device, which holds it from now on."""
        own = self._own_in(group)
        own.holders.add(peer)
        return own.key.announcement()

    def encrypt(self, group: str, content: Content) -> bytes:
        """Return a message for every device that holds this phone's sender key."""
        return self._own_in(group).key.encrypt(pad(content.encode()))

    def learn(self, group: str, peer: Peer, announcement: bytes) -> None:
        """Store the sender key that a device announces. Raise SignalError if it is invalid."""
        self._announced.setdefault((group, peer), AnnouncedSenderKeys()).learn(announcement)

    def decrypt(self, group: str, peer: Peer, message: bytes) -> Content:
        """Return the content of a message. Raise SignalError if it cannot be read."""
        announced = self._announced.get((group, peer))
        if announced is None:
            raise SignalError("no sender key of this device")
        try:
            return Content.decode(unpad(announced.decrypt(message)))
        except WireError as error:
            raise SignalError(f"not a group message: {error}") from error

    def forget(self, peer: Peer) -> None:
        """Drop all sender keys that a device has announced."""
        for key in [key for key in self._announced if key[1] == peer]:
            del self._announced[key]

    def damage(self, peer: Peer) -> None:
        """Damage all sender keys that a device has announced, so that they read nothing."""
        for (_, owner), announced in self._announced.items():
            if owner == peer:
                announced.damage()

    def _own_in(self, group: str) -> _Own[Peer]:
        if group not in self._own:
            self.begin_anew(group)
        return self._own[group]
