"""How much of what a stranger wrote goes into the typed fields of an event. content.proto tells consumers the same.

neonize's protobufs are of proto2: a text that is no valid UTF-8 comes out of them as bytes.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

Item = TypeVar("Item")

BODY, VCARD, ADDRESS, NAME = 65_536, 16_384, 4_096, 1_024
"""Characters of a text, by what it is."""
PICTURE, HASH = 65_536, 256
"""Bytes of a small picture; of a hash, a key or a waveform."""
ITEMS = 1_024
"""Of a list."""
TOGETHER = 512 * 1024
"""Bytes of all of it."""
_END_OF_TIME = 253_402_300_800
"""Seconds at which the year 10000 begins: no Timestamp goes further."""
_AHEAD = 86_400
"""Seconds that the time of what has happened may lie ahead of this machine's clock. A later one would be the newest for
years."""


class Bounds:
    """The room that is left for one message, and whether anything had to be cut."""

    def __init__(self, room: int = TOGETHER) -> None:
        self._room = room
        self.has_cut = False

    def text(self, value: str | bytes, most: int = NAME) -> str:
        """A text, valid and not longer than `most` characters."""
        text = readable(value)
        kept = text[:most]
        if len(data := kept.encode()) > self._room:
            data = data[: self._room]
            kept = data.decode(errors="ignore")
        self._room -= len(data)
        self.has_cut |= len(kept) < len(text)
        return kept

    def data(self, value: bytes, most: int = HASH) -> bytes:
        """Bytes, all or none: half a picture is no picture."""
        if len(value) > min(most, self._room):
            self.has_cut = True
            return b""
        self._room -= len(value)
        return value

    def items(self, values: Sequence[Item]) -> Sequence[Item]:
        """A list that is not too long. Its items count by what is taken of them."""
        self.has_cut |= len(values) > ITEMS
        return values[:ITEMS]

    def first(self, values: Iterable[Item]) -> Sequence[Item]:
        """The same of what would be too much to make a list of first."""
        return self.items(list(itertools.islice(values, ITEMS + 1)))


def readable(value: str | bytes) -> str:
    """A text, with U+FFFD in the place of what is no valid UTF-8."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def moment(seconds: int, milliseconds: int = 0) -> Timestamp | None:
    """Seconds since 1970 as a time; None for none, and for one that is not in our calendar."""
    if not 0 < seconds < _END_OF_TIME:
        return None
    return Timestamp(seconds=seconds, nanos=milliseconds * 1_000_000)


def past_moment(seconds: int, milliseconds: int = 0) -> Timestamp | None:
    """The same of something that has happened: None also for a time to come."""
    return moment(seconds, milliseconds) if seconds <= time.time() + _AHEAD else None
