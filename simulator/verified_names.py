"""Builds the certificate with which WhatsApp shows the verified name of a business."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from simulator.wire_format import Record, number


@dataclass
class _Details(Record):
    serial: int | None = number(1)
    issuer: str | None = number(2)
    name: str | None = number(4)


@dataclass
class _Certificate(Record):
    details: bytes | None = number(1)
    signature: bytes | None = number(2)


def certificate(name: str) -> bytes:
    """Return the certificate of a name. Clients do not verify its signature, which is random."""
    return _Certificate(_Details(1, "smb:wa", name).encode(), secrets.token_bytes(64)).encode()
