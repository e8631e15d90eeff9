"""Provides curve keys for both key agreement (X25519) and signatures (XEdDSA), based on Ed25519 keys.

Signal and WhatsApp publish a Montgomery key and verify Edwards signatures with it. This is equivalent to an Ed25519 key
pair whose clamped scalar is the X25519 private key, so that no curve arithmetic is needed here.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

#: Signal writes this byte before a public key.
DJB_TYPE = b"\x05"
_PRIME = 2**255 - 19


class AgreementKey:
    """An X25519 key pair."""

    def __init__(self, private: bytes | None = None) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private or os.urandom(32))
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def agree(self, public: bytes) -> bytes:
        """Return the secret shared with the owner of this public key."""
        return self._private.exchange(X25519PublicKey.from_public_bytes(public))


class SigningKey(AgreementKey):
    """An X25519 key pair that also signs."""

    def __init__(self, seed: bytes | None = None) -> None:
        seed = seed or os.urandom(32)
        super().__init__(hashlib.sha512(seed).digest()[:32])
        self._signer = Ed25519PrivateKey.from_private_bytes(seed)
        edwards = self._signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._sign_bit = edwards[31] & 0x80

    def sign(self, message: bytes) -> bytes:
        """Return a signature for the Montgomery public key. Its top bit is the sign of the Edwards key."""
        signature = bytearray(self._signer.sign(message))
        signature[63] |= self._sign_bit
        return bytes(signature)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the owner of this Montgomery public key signed this message."""
    if len(public) != 32 or len(signature) != 64:
        return False
    u = int.from_bytes(public, "little") % (1 << 255)
    if (u + 1) % _PRIME == 0:
        return False
    edwards = bytearray(((u - 1) * pow(u + 1, -1, _PRIME) % _PRIME).to_bytes(32, "little"))
    edwards[31] |= signature[63] & 0x80
    try:
        Ed25519PublicKey.from_public_bytes(bytes(edwards)).verify(
            signature[:63] + bytes((signature[63] & 0x7F,)), message
        )
    except (InvalidSignature, ValueError):
        return False
    return True
