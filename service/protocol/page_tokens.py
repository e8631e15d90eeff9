"""Write and read page tokens: the last item of a page, bound to the filters of its List call."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

_CHECKSUM_BYTES = 12


def write(filters: Sequence[object], last: str) -> str:
    """Return the token of the page after the item `last`. It is valid for the same filters only."""
    return base64.urlsafe_b64encode(_checksum(filters, last) + last.encode()).decode().rstrip("=")


def read(token: str, filters: Sequence[object]) -> str:
    """Return the last item of a token. Raise ValueError if the token is not one of these filters."""
    try:
        # Without validate, Python skips characters outside of the alphabet.
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        last = data[_CHECKSUM_BYTES:].decode("ascii")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a page token") from error
    # A decoder ignores spare bits of the last character, so compare the whole token.
    if not last or write(filters, last) != token:
        raise ValueError("a page token of other filters")
    return last


def _checksum(filters: Sequence[object], last: str) -> bytes:
    """Return a checksum that binds a page to its filters. It needs no secret: a page shows only what the filters do."""
    return hashlib.sha256(json.dumps([*filters, last]).encode()).digest()[:_CHECKSUM_BYTES]
