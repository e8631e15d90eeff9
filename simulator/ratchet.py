"""Implements one Signal session: X3DH to begin it, then the double ratchet."""

from __future__ import annotations

import copy
import hmac
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from simulator.derivation import hkdf, hmac_sha256
from simulator.prekeys import KeyRing, PreKeyBundle
from simulator.schemas import PreKeySignalMessage, SignalMessage
from simulator.signing import DJB_TYPE, AgreementKey, verify
from simulator.symmetric import decrypt_cbc, encrypt_cbc

#: Version 3, twice: the version of the message, and the newest version that its sender knows.
VERSION = b"\x33"
_MAC_SIZE = 8
_FURTHEST_AHEAD = 2_000
_MOST_SKIPPED = 2_000
_MOST_RECEIVING_CHAINS = 5


class SignalError(Exception):
    """A message that this session cannot decrypt."""


@dataclass
class Chain:
    """A symmetric ratchet: each step yields one message key."""

    key: bytes
    counter: int = 0

    def step(self) -> tuple[int, bytes]:
        """Return the next message's number and the seed of its keys."""
        seed = hmac_sha256(self.key, b"\x01")
        self.key = hmac_sha256(self.key, b"\x02")
        self.counter += 1
        return self.counter - 1, seed


@dataclass(frozen=True)
class Introduction:
    """The header that the initiator adds to its messages until the first answer arrives."""

    registration_id: int
    prekey_id: int | None
    signed_prekey_id: int
    base_key: bytes


@dataclass
class Session:
    """The state of one conversation between two devices."""

    own_identity: bytes
    their_identity: bytes
    root: bytes
    own_ratchet: AgreementKey
    sending: Chain
    base_key: bytes
    introduction: Introduction | None = None
    previous_counter: int = 0
    receiving: OrderedDict[bytes, Chain] = field(default_factory=OrderedDict)
    skipped: OrderedDict[tuple[bytes, int], bytes] = field(default_factory=OrderedDict)

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """Return the kind ("pkmsg" or "msg") and the bytes of the next message."""
        counter, seed = self.sending.step()
        keys = _MessageKeys(seed)
        body = SignalMessage(
            DJB_TYPE + self.own_ratchet.public, counter, self.previous_counter, keys.encrypt(plaintext)
        )
        framed = VERSION + body.encode()
        message = framed + keys.mac(self.own_identity, self.their_identity, framed)
        if self.introduction is None:
            return "msg", message
        wrapped = PreKeySignalMessage(
            self.introduction.prekey_id,
            DJB_TYPE + self.introduction.base_key,
            DJB_TYPE + self.own_identity,
            message,
            self.introduction.registration_id,
            self.introduction.signed_prekey_id,
        )
        return "pkmsg", VERSION + wrapped.encode()

    def decrypt(self, message: bytes) -> bytes:
        """Return the plaintext. A SignalError leaves the session unchanged."""
        attempt = copy.copy(self)
        attempt.receiving = OrderedDict((key, copy.copy(chain)) for key, chain in self.receiving.items())
        attempt.skipped = self.skipped.copy()
        plaintext = attempt._decrypt(message)
        self.__dict__.update(attempt.__dict__)
        return plaintext

    def damage(self) -> None:
        """Overwrite the receiving keys: the session cannot decrypt any more, and encrypts as before."""
        self.root = os.urandom(32)
        self.receiving = OrderedDict(
            (key, Chain(os.urandom(32), chain.counter)) for key, chain in self.receiving.items()
        )
        self.skipped.clear()

    def _decrypt(self, message: bytes) -> bytes:
        framed, mac = message[:-_MAC_SIZE], message[-_MAC_SIZE:]
        body = SignalMessage.decode(framed[1:])
        ratchet, counter = (body.ratchet_key or b"")[1:], body.counter or 0
        keys = _MessageKeys(self._seed_for(ratchet, counter))
        if not hmac.compare_digest(mac, keys.mac(self.their_identity, self.own_identity, framed)):
            raise SignalError("message authentication code does not match")
        self.introduction = None
        return keys.decrypt(body.ciphertext or b"")

    def _seed_for(self, ratchet: bytes, counter: int) -> bytes:
        if (seed := self.skipped.pop((ratchet, counter), None)) is not None:
            return seed
        chain = self.receiving.get(ratchet) or self._advance(ratchet)
        if counter < chain.counter:
            raise SignalError(f"message {counter} was decrypted before")
        if counter - chain.counter > _FURTHEST_AHEAD:
            raise SignalError(f"message {counter} is too far ahead")
        while True:
            number, seed = chain.step()
            if number == counter:
                return seed
            self.skipped[ratchet, number] = seed
            if len(self.skipped) > _MOST_SKIPPED:
                self.skipped.popitem(last=False)

    def _advance(self, ratchet: bytes) -> Chain:
        """Derive the chain of the other side's new ratchet key, then a new sending chain."""
        self.root, chain_key = _ratchet(self.root, self.own_ratchet, ratchet)
        chain = self.receiving[ratchet] = Chain(chain_key)
        if len(self.receiving) > _MOST_RECEIVING_CHAINS:
            self.receiving.popitem(last=False)
        self.previous_counter = max(self.sending.counter - 1, 0)
        self.own_ratchet = AgreementKey()
        self.root, sending_key = _ratchet(self.root, self.own_ratchet, ratchet)
        self.sending = Chain(sending_key)
        return chain


def initiate(own: KeyRing, bundle: PreKeyBundle) -> Session:
    """Begin a session towards the owner of this bundle."""
    if not verify(bundle.identity, DJB_TYPE + bundle.signed.public, bundle.signed.signature):
        raise SignalError("the signature of the signed prekey does not verify")
    base = AgreementKey()
    agreements = [
        own.identity.agree(bundle.signed.public),
        base.agree(bundle.identity),
        base.agree(bundle.signed.public),
    ]
    if bundle.one_time is not None:
        agreements.append(base.agree(bundle.one_time.public))
    root, chain_key = _extended_triple(agreements)
    ratchet = AgreementKey()
    root, sending_key = _ratchet(root, ratchet, bundle.signed.public)
    return Session(
        own_identity=own.identity.public,
        their_identity=bundle.identity,
        root=root,
        own_ratchet=ratchet,
        sending=Chain(sending_key),
        base_key=base.public,
        introduction=Introduction(
            own.registration_id, bundle.one_time.id if bundle.one_time else None, bundle.signed.id, base.public
        ),
        receiving=OrderedDict({bundle.signed.public: Chain(chain_key)}),
    )


def respond(own: KeyRing, message: PreKeySignalMessage) -> Session:
    """Return the session that the sender of this message has begun."""
    base, their_identity = (message.base_key or b"")[1:], (message.identity_key or b"")[1:]
    agreements = [
        own.signed_key.agree(their_identity),
        own.identity.agree(base),
        own.signed_key.agree(base),
    ]
    if message.prekey_id is not None:
        one_time = own.one_time_key(message.prekey_id)
        if one_time is None:
            raise SignalError(f"one-time prekey {message.prekey_id} is unknown or was used before")
        agreements.append(one_time.agree(base))
    root, chain_key = _extended_triple(agreements)
    return Session(own.identity.public, their_identity, root, own.signed_key, Chain(chain_key), base_key=base)


def _extended_triple(agreements: list[bytes]) -> tuple[bytes, bytes]:
    material = hkdf(b"\xff" * 32 + b"".join(agreements), 64, info=b"WhisperText")
    return material[:32], material[32:]


def _ratchet(root: bytes, own: AgreementKey, theirs: bytes) -> tuple[bytes, bytes]:
    material = hkdf(own.agree(theirs), 64, salt=root, info=b"WhisperRatchet")
    return material[:32], material[32:]


class _MessageKeys:
    """The keys of a single message."""

    def __init__(self, seed: bytes) -> None:
        material = hkdf(seed, 80, info=b"WhisperMessageKeys")
        self._key, self._mac_key, self._iv = material[:32], material[32:64], material[64:]

    def mac(self, sender: bytes, receiver: bytes, framed: bytes) -> bytes:
        return hmac_sha256(self._mac_key, DJB_TYPE + sender + DJB_TYPE + receiver + framed)[:_MAC_SIZE]

    def encrypt(self, plaintext: bytes) -> bytes:
        return encrypt_cbc(self._key, self._iv, plaintext)

    def decrypt(self, ciphertext: bytes) -> bytes:
        try:
            return decrypt_cbc(self._key, self._iv, ciphertext)
        except ValueError as error:
            raise SignalError(f"ciphertext: {error}") from error
