"""Pads the content of encrypted messages."""

from __future__ import annotations

import secrets

from simulator.ratchet import SignalError


def pad(data: bytes) -> bytes:
    """Hide the length with 1 to 15 bytes, each of which is their number."""
    count = secrets.randbelow(15) + 1
    return data + bytes((count,)) * count


def unpad(data: bytes) -> bytes:
    """Return the data without its padding."""
    if not data or not 1 <= data[-1] <= len(data):
        raise SignalError("padding is garbled")
    return data[: -data[-1]]
