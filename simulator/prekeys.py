"""Holds prekeys, which a device uploads so that others can write to it while it is offline."""

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
    """The keys with which one correspondent starts a Signal session with a device."""

    registration_id: int
    identity: bytes
    signed: PreKey
    one_time: PreKey | None


@dataclass
class Shelf:
    """The uploaded prekeys of a linked device. Each one-time key is issued once."""

    registration_id: int
    identity: bytes
    signed: PreKey
    one_time: OrderedDict[int, PreKey] = field(default_factory=OrderedDict)

    def bundle(self) -> PreKeyBundle:
        """Return the next correspondent's bundle, without a one-time key when none is left."""
        one_time = self.one_time.popitem(last=False)[1] if self.one_time else None
        return PreKeyBundle(self.registration_id, self.identity, self.signed, one_time)


class KeyRing:
    """The private keys of a phone's prekeys. One-time keys are created on demand."""

    #: Maximum number of issued one-time keys that are not used yet.
    MOST_UNUSED = 1024

    def __init__(self) -> None:
        self.identity = SigningKey()
        self.registration_id = secrets.randbelow(0x3FFF) + 1
        self.signed_key = AgreementKey()
        self._signed = PreKey(1, self.signed_key.public, self.identity.sign(DJB_TYPE + self.signed_key.public))
        self._one_time: OrderedDict[int, AgreementKey] = OrderedDict()
        self._next_id = int.from_bytes(os.urandom(2), "big") + 1

    def bundle(self) -> PreKeyBundle:
        """Return a bundle with a new one-time key."""
        key, key_id = AgreementKey(), self._next_id
        self._next_id = self._next_id % 0xFFFFFE + 1
        self._one_time[key_id] = key
        if len(self._one_time) > self.MOST_UNUSED:
            self._one_time.popitem(last=False)
        return PreKeyBundle(self.registration_id, self.identity.public, self._signed, PreKey(key_id, key.public))

    def one_time_key(self, key_id: int) -> AgreementKey | None:
        """Return the one-time key of this number, if it is unused."""
        return self._one_time.get(key_id)

    def use_up(self, key_id: int | None) -> None:
        """Delete a one-time key, with which a session was started."""
        if key_id is not None:
            self._one_time.pop(key_id, None)
