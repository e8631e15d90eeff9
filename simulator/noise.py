"""Implements the server's side of Noise_XX_25519_AESGCM_SHA256, with the certificates that clients verify."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from simulator.derivation import hkdf
from simulator.schemas import (
    Certificate,
    CertificateChain,
    CertificateDetails,
    ClientFinish,
    HandshakeMessage,
    ServerHello,
)
from simulator.signing import AgreementKey, SigningKey
from simulator.wire_format import WireError

#: The pattern's name is exactly 32 bytes with its padding, so it is used as the first hash.
PATTERN = b"Noise_XX_25519_AESGCM_SHA256\x00\x00\x00\x00"
#: The bytes that a client sends before its first frame. The handshake hashes them.
PROLOGUE = b"WA\x06\x03"
_CERTIFICATE_LIFETIME = 365 * 86_400


class HandshakeError(ValueError):
    """The peer does not follow this handshake, or uses other keys."""


class Cipher:
    """One direction of the connection: AES-GCM with a counter."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._counter = 0

    def encrypt(self, data: bytes, associated: bytes = b"") -> bytes:
        return self._aead.encrypt(self._next_nonce(), data, associated)

    def decrypt(self, data: bytes, associated: bytes = b"") -> bytes:
        try:
            return self._aead.decrypt(self._next_nonce(), data, associated)
        except InvalidTag as error:
            raise HandshakeError("frame does not decrypt") from error

    def _next_nonce(self) -> bytes:
        self._counter += 1
        return bytes(8) + (self._counter - 1).to_bytes(4, "big")


class SymmetricState:
    """The running hash and keys of a handshake, equal on both sides."""

    def __init__(self) -> None:
        self._hash = self._chaining_key = PATTERN
        self._cipher = Cipher(PATTERN)
        self.mix_hash(PROLOGUE)

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        material = hkdf(secret, 64, salt=self._chaining_key)
        self._chaining_key = material[:32]
        self._cipher = Cipher(material[32:])

    def encrypt(self, data: bytes) -> bytes:
        ciphertext = self._cipher.encrypt(data, self._hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt(self, ciphertext: bytes) -> bytes:
        data = self._cipher.decrypt(ciphertext, self._hash)
        self.mix_hash(ciphertext)
        return data

    def split(self) -> tuple[Cipher, Cipher]:
        """Return the ciphers of the connection: client to server, server to client."""
        material = hkdf(b"", 64, salt=self._chaining_key)
        return Cipher(material[:32]), Cipher(material[32:])


class ServerIdentity:
    """The server's long-term keys: a root that clients are made to trust, and a certified static key."""

    def __init__(self) -> None:
        self.root = SigningKey()
        self.static = AgreementKey()
        self.certificates = self._certify(SigningKey()).encode()

    def _certify(self, intermediate: SigningKey) -> CertificateChain:
        return CertificateChain(
            leaf=_certificate(2, 1, self.static.public, intermediate),
            intermediate=_certificate(1, 0, intermediate.public, self.root),
        )


def _certificate(serial: int, issuer_serial: int, key: bytes, issuer: SigningKey) -> Certificate:
    now = int(time.time())
    details = CertificateDetails(
        serial, issuer_serial, key, not_before=now - 86_400, not_after=now + _CERTIFICATE_LIFETIME
    )
    return Certificate(details.encode(), issuer.sign(details.encode()))


@dataclass(frozen=True)
class Established:
    """The result of a handshake: the client's key, its payload, and the ciphers of the connection."""

    client_static: bytes
    payload: bytes
    incoming: Cipher
    outgoing: Cipher


class Responder:
    """The server in one handshake: `hello`, then `finish`."""

    def __init__(self, identity: ServerIdentity) -> None:
        self._identity = identity
        self._state = SymmetricState()
        self._ephemeral = AgreementKey()

    def hello(self, message: bytes) -> bytes:
        """Answer a client hello."""
        client_hello = _parse(message).client_hello
        if client_hello is None or len(client_hello.ephemeral or b"") != 32:
            raise HandshakeError("expected a client hello")
        client_ephemeral = client_hello.ephemeral or b""
        state = self._state
        state.mix_hash(client_ephemeral)
        state.mix_hash(self._ephemeral.public)
        state.mix_key(_agree(self._ephemeral, client_ephemeral))
        static = state.encrypt(self._identity.static.public)
        state.mix_key(_agree(self._identity.static, client_ephemeral))
        payload = state.encrypt(self._identity.certificates)
        return HandshakeMessage(server_hello=ServerHello(self._ephemeral.public, static, payload)).encode()

    def finish(self, message: bytes) -> Established:
        """Process the client's last message."""
        finish = _parse(message).client_finish or ClientFinish()
        static = self._state.decrypt(finish.static or b"")
        self._state.mix_key(_agree(self._ephemeral, static))
        payload = self._state.decrypt(finish.payload or b"")
        incoming, outgoing = self._state.split()
        # The first half encrypts what the initiator sends.
        return Established(static, payload, incoming, outgoing)


def _parse(message: bytes) -> HandshakeMessage:
    try:
        return HandshakeMessage.decode(message)
    except WireError as error:
        raise HandshakeError(f"not a handshake message: {error}") from error


def _agree(own: AgreementKey, public: bytes) -> bytes:
    try:
        return own.agree(public)
    except ValueError as error:
        raise HandshakeError(f"unusable key: {error}") from error
