"""Define log positions, and the resume tokens that encode them for callers.

A log position is (id of the appending transaction, id of the event). The *horizon* is the oldest transaction in flight:
every event below it is committed, or will never be. So a reader that stays below it and keeps its position skips none.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct(">BQQ")
_VERSION = 1
_SIGNATURE_BYTES = 8
"""Bytes of the signature, which only detects made-up tokens: a position is no secret."""


@dataclass(frozen=True, order=True)
class LogPosition:
    """The position of an event or, with id 0, the one before all events of a transaction."""

    xid: int
    id: int = 0


START = LogPosition(0)
"""Position before all events."""


class InvalidToken(ValueError):
    """The token was not made with this key: it is altered, made up, or from another database."""


class ResumeTokenCodec:
    """Encodes log positions as opaque tokens and decodes them. All nodes of a database share the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def write(self, position: LogPosition) -> str:
        """Return the token of a position: 34 URL-safe characters."""
        body = _LAYOUT.pack(_VERSION, position.xid, position.id)
        return base64.urlsafe_b64encode(body + self._signature(body)).decode().rstrip("=")

    def read(self, token: str) -> LogPosition:
        """Return the position of a token. Raises InvalidToken."""
        try:
            # Strict, so that each position has one token: a lenient decoder skips characters and ignores spare bits.
            signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidToken("not base64") from error
        body, signature = signed[: _LAYOUT.size], signed[_LAYOUT.size :]
        if len(body) != _LAYOUT.size or not hmac.compare_digest(signature, self._signature(body)):
            raise InvalidToken("its signature does not match")
        version, xid, event_id = _LAYOUT.unpack(body)
        position = LogPosition(xid, event_id)
        if version != _VERSION or self.write(position) != token:
            raise InvalidToken("not in canonical form")
        return position

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_SIGNATURE_BYTES]
