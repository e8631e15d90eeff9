"""Implements Signal's group cipher.

A device that writes in a group has a sender key: a chain that yields one key per message, and a signing key. The
device announces both to each reader once, over their pairwise session. Then one ciphertext serves all readers.
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from simulator.derivation import hkdf
from simulator.ratchet import VERSION, Chain, SignalError
from simulator.schemas import SenderKeyAnnouncement, SenderKeyMessage
from simulator.signing import DJB_TYPE, SigningKey, verify
from simulator.symmetric import decrypt_cbc, encrypt_cbc
from simulator.wire_format import WireError

_SIGNATURE_SIZE = 64
_FURTHEST_AHEAD = 2_000
_MOST_SKIPPED = 2_000
_MOST_CHAINS = 5


class OwnSenderKey:
    """The sender key of a device in one group."""

    def __init__(self) -> None:
        self._id = secrets.randbelow(2**31)
        self._signing = SigningKey()
        self._chain = Chain(os.urandom(32))

    def announcement(self) -> bytes:
        """Return the announcement that lets a device read the following messages."""
        announced = SenderKeyAnnouncement(
            self._id, self._chain.counter, self._chain.key, DJB_TYPE + self._signing.public
        )
        return VERSION + announced.encode()

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next message, signed."""
        iteration, seed = self._chain.step()
        framed = VERSION + SenderKeyMessage(self._id, iteration, _encrypt(seed, plaintext)).encode()
        return framed + self._signing.sign(framed)


@dataclass
class _ReadingChain:
    """One announced sender key of another device."""

    id: int
    chain: Chain
    signing_public: bytes
    skipped: OrderedDict[int, bytes] = field(default_factory=OrderedDict)

    def seed_for(self, iteration: int) -> bytes:
        """Return the seed of a message's keys, and store the seeds of skipped messages."""
        if (seed := self.skipped.pop(iteration, None)) is not None:
            return seed
        if iteration < self.chain.counter:
            raise SignalError(f"group message {iteration} was decrypted before")
        if iteration - self.chain.counter > _FURTHEST_AHEAD:
            raise SignalError(f"group message {iteration} is too far ahead")
        while True:
            number, seed = self.chain.step()
            if number == iteration:
                return seed
            self.skipped[number] = seed
            if len(self.skipped) > _MOST_SKIPPED:
                self.skipped.popitem(last=False)


class AnnouncedSenderKeys:
    """The sender keys that one device has announced in one group, the newest first."""

    def __init__(self) -> None:
        self._chains: list[_ReadingChain] = []

    def learn(self, announcement: bytes) -> None:
        """Store an announcement. A known one is ignored, so that its chain still reads older messages."""
        try:
            announced = SenderKeyAnnouncement.decode(announcement[1:])
        except WireError as error:
            raise SignalError(f"not an announcement of a sender key: {error}") from error
        if announced.id is None or not announced.chain_key or not announced.signing_key:
            raise SignalError("the announcement of a sender key is incomplete")
        public = announced.signing_key[1:]
        if any(chain.id == announced.id and chain.signing_public == public for chain in self._chains):
            return
        others = [chain for chain in self._chains if chain.id != announced.id]
        learned = _ReadingChain(announced.id, Chain(announced.chain_key, announced.iteration or 0), public)
        self._chains = [learned, *others][:_MOST_CHAINS]

    def decrypt(self, message: bytes) -> bytes:
        """Return the plaintext. Raise SignalError if the message cannot be read.

        A message that does not verify changes nothing.
        """
        framed, signature = message[:-_SIGNATURE_SIZE], message[-_SIGNATURE_SIZE:]
        body = SenderKeyMessage.decode(framed[1:])
        chain = next((chain for chain in self._chains if chain.id == body.id), None)
        if chain is None:
            raise SignalError(f"sender key {body.id} is unknown")
        if not verify(chain.signing_public, framed, signature):
            raise SignalError("the signature of a group message does not verify")
        return _decrypt(chain.seed_for(body.iteration or 0), body.ciphertext or b"")

    def damage(self) -> None:
        """Replace the signing keys, to simulate damage on disk."""
        self._chains = [replace(chain, signing_public=SigningKey().public) for chain in self._chains]


def _keys(seed: bytes) -> tuple[bytes, bytes]:
    material = hkdf(seed, 48, info=b"WhisperGroup")
    return material[16:], material[:16]


def _encrypt(seed: bytes, plaintext: bytes) -> bytes:
    key, iv = _keys(seed)
    return encrypt_cbc(key, iv, plaintext)


def _decrypt(seed: bytes, ciphertext: bytes) -> bytes:
    key, iv = _keys(seed)
    try:
        return decrypt_cbc(key, iv, ciphertext)
    except ValueError as error:
        raise SignalError(f"ciphertext: {error}") from error
