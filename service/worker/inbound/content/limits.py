"""Bounds how much of a message goes into the typed fields of an event. content.proto documents the same limits.

neonize's protobufs are proto2, so a text that is not valid UTF-8 comes out of them as bytes.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

Item = TypeVar("Item")

BODY, VCARD, ADDRESS, NAME = 65_536, 16_384, 4_096, 1_024
"""Maximum characters of a text, by its kind."""
PICTURE, HASH = 65_536, 256
"""Maximum bytes of a thumbnail, and of a hash, a key or a waveform."""
ITEMS = 1_024
"""Maximum items of a list."""
TOGETHER = 512 * 1024
"""Maximum bytes of all typed fields of an event."""
_TIMESTAMP_END_S = 253_402_300_800
"""Start of the year 10000, in seconds since 1970; a Timestamp ends there."""
_MAX_CLOCK_SKEW_S = 86_400
"""How far a past time may lie ahead of this machine's clock. A later one would be the newest for years."""


class Bounds:
    """Tracks the bytes that are left for one message, and whether anything was cut."""

    def __init__(self, total: int = TOGETHER) -> None:
        self._left = total
        self.has_cut = False

    def text(self, value: str | bytes, most: int = NAME) -> str:
        """Return a valid text of at most `most` characters."""
        text = readable(value)
        kept = text[:most]
        if len(data := kept.encode()) > self._left:
            data = data[: self._left]
            kept = data.decode(errors="ignore")
        self._left -= len(data)
        self.has_cut |= len(kept) < len(text)
        return kept

    def data(self, value: bytes, most: int = HASH) -> bytes:
        """Return the bytes, or none if they are too many: half a picture is useless."""
        if len(value) > min(most, self._left):
            self.has_cut = True
            return b""
        self._left -= len(value)
        return value

    def items(self, values: Sequence[Item]) -> Sequence[Item]:
        """Return at most ITEMS items. The texts and bytes in them are bounded separately."""
        self.has_cut |= len(values) > ITEMS
        return values[:ITEMS]

    def first(self, values: Iterable[Item]) -> Sequence[Item]:
        """Return at most ITEMS items of an iterable, without consuming much more of it."""
        return self.items(list(itertools.islice(values, ITEMS + 1)))


def readable(value: str | bytes) -> str:
    """Return a text in which U+FFFD replaces invalid UTF-8."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def moment(seconds: int, milliseconds: int = 0) -> Timestamp | None:
    """Return a time given in seconds since 1970; None for 0 and for one that a Timestamp cannot hold."""
    if not 0 < seconds < _TIMESTAMP_END_S:
        return None
    return Timestamp(seconds=seconds, nanos=milliseconds * 1_000_000)


def past_moment(seconds: int, milliseconds: int = 0) -> Timestamp | None:
    """Return a past time given in seconds since 1970; None also for one in the future."""
    return moment(seconds, milliseconds) if seconds <= time.time() + _MAX_CLOCK_SKEW_S else None
