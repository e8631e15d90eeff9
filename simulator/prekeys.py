"""Prekeys: what a device leaves with the server so that others can write to it while it is away."""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from simulator.signing import DJB_TYPE, AgreementKey, SigningKey


@dataclass(frozen=True)
class PreKey:
    """A published key: its number, the key, and the identity's signature if it is a signed prekey."""

    id: int
    public: bytes
    signature: bytes = b""


@dataclass(frozen=True)
class PreKeyBundle:
    """What one correspondent gets to start a Signal session with a device."""

    registration_id: int
    identity: bytes
    signed: PreKey
    one_time: PreKey | None


@dataclass
class Shelf:
    """The prekeys of a companion device, as it uploaded them. Each one-time key is given out once."""

    registration_id: int
    identity: bytes
    signed: PreKey
    one_time: OrderedDict[int, PreKey] = field(default_factory=OrderedDict)

    def bundle(self) -> PreKeyBundle:
        """The next correspondent's bundle; without a one-time key when they have run out."""
        one_time = self.one_time.popitem(last=False)[1] if self.one_time else None
        return PreKeyBundle(self.registration_id, self.identity, self.signed, one_time)


class KeyRing:
    """The private side of a phone's prekeys; one-time keys are made when somebody asks for one."""

    #: One-time keys that were handed out and never used do not pile up beyond this.
    MOST_UNUSED = 1024

    def __init__(self) -> None:
        self.identity = SigningKey()
        self.registration_id = secrets.randbelow(0x3FFF) + 1
        self.signed_key = AgreementKey()
        self._signed = PreKey(1, self.signed_key.public, self.identity.sign(DJB_TYPE + self.signed_key.public))
        self._one_time: OrderedDict[int, AgreementKey] = OrderedDict()
        self._next_id = int.from_bytes(os.urandom(2), "big") + 1

    def bundle(self) -> PreKeyBundle:
        """A bundle with a fresh one-time key."""
        key, key_id = AgreementKey(), self._next_id
        self._next_id = self._next_id % 0xFFFFFE + 1
        self._one_time[key_id] = key
        if len(self._one_time) > self.MOST_UNUSED:
            self._one_time.popitem(last=False)
        return PreKeyBundle(self.registration_id, self.identity.public, self._signed, PreKey(key_id, key.public))

    def one_time_key(self, key_id: int) -> AgreementKey | None:
        """The one-time key of this number, if it is still unused."""
        return self._one_time.get(key_id)

    def use_up(self, key_id: int | None) -> None:
        """Forget a one-time key: a session was started with it."""
        if key_id is not None:
            self._one_time.pop(key_id, None)
