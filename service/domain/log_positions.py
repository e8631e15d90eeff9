"""Places in the event log, and the tokens by which callers name them.

A place is (number of the transaction that appended, id). Below the *horizon*, the oldest transaction still in flight,
everything is committed or will never be, so that a reader who stays below it and remembers his place skips nothing.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct(">BQQ")
_VERSION = 1
_SIGNATURE = 8
"""Bytes of the signature: it keeps callers from making places up, which would do harm to nobody but themselves."""


@dataclass(frozen=True, order=True)
class LogPosition:
    """A place: an event's own, or, with id 0, the one before all events of a transaction."""

    xid: int
    id: int = 0


START = LogPosition(0)
"""Before all events."""


class InvalidToken(ValueError):
    """Not made with this key: altered, made up, or another database's."""


class ResumeTokenCodec:
    """Writes places down as opaque texts, and reads them. Nodes that share the key read each other's."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def write(self, place: LogPosition) -> str:
        """A token: 34 letters that need no quoting anywhere."""
        body = _LAYOUT.pack(_VERSION, place.xid, place.id)
        return base64.urlsafe_b64encode(body + self._signature(body)).decode().rstrip("=")

    def read(self, token: str) -> LogPosition:
        """The place of a token. Raises InvalidToken."""
        try:
            # Strict: letters that mean nothing, and spare bits, would make many tokens of one.
            signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidToken("not base64") from error
        body, signature = signed[: _LAYOUT.size], signed[_LAYOUT.size :]
        if len(body) != _LAYOUT.size or not hmac.compare_digest(signature, self._signature(body)):
            raise InvalidToken("its signature is not ours")
        version, xid, event_id = _LAYOUT.unpack(body)
        place = LogPosition(xid, event_id)
        if version != _VERSION or self.write(place) != token:
            raise InvalidToken("not as we write them")
        return place

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_SIGNATURE]
