"""Define the steps and outcomes of a pairing, and read its QR text."""

import base64
import binascii
import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_CODE_LIFETIME = timedelta(seconds=60)
"""How long WhatsApp accepts the first code (whatsmeow, qrchan.go)."""
NEXT_CODE_LIFETIME = timedelta(seconds=20)
"""How long WhatsApp accepts each later code."""
CODES_PER_ATTEMPT = 6


class PairingOutcome(enum.Enum):
    """Says how a pairing ended. Every outcome but PAIRED deactivates the session, so that no pairing lasts forever."""

    PAIRED = "PAIRED"
    TIMED_OUT = "TIMED_OUT"
    PASSKEY_REQUIRED = "PASSKEY_REQUIRED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class PairingCode:
    """Holds a current QR code."""

    text: str
    position: int
    """1 to 6."""
    expire_time: datetime

    def __repr__(self) -> str:
        """Omit the text, which is enough to take the account over."""
        return f"PairingCode(position={self.position}, expire_time={self.expire_time.isoformat()})"


@dataclass(frozen=True)
class ShownCode:
    """A step of a pairing: a new code replaces the previous one."""

    code: PairingCode


@dataclass(frozen=True)
class PairingDelayed:
    """A step of a pairing: there is no code until a retry. `reason`: a code of service.domain.reasons."""

    reason: str
    next_attempt: datetime | None
    """None: the retry is under way."""


@dataclass(frozen=True)
class PairingEnded:
    """The last step of a pairing. `reason`: a code of service.domain.reasons; empty with PAIRED."""

    outcome: PairingOutcome
    reason: str = ""


PairingStep = ShownCode | PairingDelayed | PairingEnded


def identity_of(qr_text: str) -> bytes:
    """Return the companion's identity public key (32 bytes): the third field of a QR text, after any ``#`` of a URL.

    It binds a session to the device that a scan of the code creates: no other key in the text stays the same during a
    pairing. Raises ValueError if the text is malformed.
    """
    fields = qr_text.rpartition("#")[2].split(",")
    if len(fields) < 4:
        raise ValueError(f"a QR text has at least 4 comma-separated fields, this one has {len(fields)}")
    try:
        key = base64.b64decode(fields[2], validate=True)
    except binascii.Error as error:
        raise ValueError("the third field of the QR text is not base64") from error
    if len(key) != 32:
        raise ValueError(f"the identity key in a QR text has 32 bytes, this one has {len(key)}")
    return key
