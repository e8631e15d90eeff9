"""Derives keys with HKDF and HMAC over SHA-256, as Noise, Signal and pairing do."""

from __future__ import annotations

import hashlib
import hmac


def hkdf(secret: bytes, size: int, *, salt: bytes = b"", info: bytes = b"") -> bytes:
    """Return HKDF-SHA256. An empty salt is 32 zero bytes."""
    key = hmac_sha256(salt or bytes(32), secret)
    out = block = b""
    counter = 1
    while len(out) < size:
        block = hmac_sha256(key, block + info + bytes((counter,)))
        out += block
        counter += 1
    return out[:size]


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256."""
    return hmac.digest(key, data, hashlib.sha256)
