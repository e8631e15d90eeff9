"""The steps of linking a device: what a QR text holds, how long a code is good, how an attempt can end."""

import base64
import binascii
import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_CODE_LIFETIME = timedelta(seconds=60)
"""How long WhatsApp accepts the first code (whatsmeow, qrchan.go)."""
NEXT_CODE_LIFETIME = timedelta(seconds=20)
"""How long it accepts each of the others."""
CODES_PER_ATTEMPT = 6


class PairingOutcome(enum.Enum):
    """How a pairing ended; every one but PAIRED makes the session unwanted: nobody shows QR codes for ever."""

    PAIRED = "PAIRED"
    TIMED_OUT = "TIMED_OUT"
    PASSKEY_REQUIRED = "PASSKEY_REQUIRED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class PairingCode:
    """A QR code on show."""

    text: str
    position: int
    """1 to 6."""
    expire_time: datetime

    def __repr__(self) -> str:
        """Without the text: whoever has it can take the account over."""
        return f"PairingCode(position={self.position}, expire_time={self.expire_time.isoformat()})"


@dataclass(frozen=True)
class ShownCode:
    """A step of a pairing: a code to show from now on; it replaces the one before."""

    code: PairingCode


@dataclass(frozen=True)
class PairingDelayed:
    """A step of a pairing: there is no code, for a reason (a code of service.domain.reasons); it is tried again."""

    reason: str
    next_attempt: datetime | None
    """None: it is being tried now."""


@dataclass(frozen=True)
class PairingEnded:
    """The last step of a pairing: how it ended. `reason` is a code of service.domain.reasons, empty with PAIRED."""

    outcome: PairingOutcome
    reason: str = ""


PairingStep = ShownCode | PairingDelayed | PairingEnded


def identity_of(qr_text: str) -> bytes:
    """The companion's identity public key (32 bytes): the third field of a QR text, after the URL's ``#`` if any.

    It binds a session to the device that the scan of this code will make: of the keys in the text it is the only
    one that never changes in the whole flow. Raises ValueError if the text is not of this form.
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
