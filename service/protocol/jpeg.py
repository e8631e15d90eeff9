"""Read the size of a JPEG from its headers, without decoding it."""

import struct

_START, _END = b"\xff\xd8\xff", 0xD9
#: Frame headers (SOF), which hold the size. C4, C8 and CC of this range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Markers without a length: TEM and restarts.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels, None if the data is no JPEG."""
    if not data.startswith(_START):
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            if at + 9 > len(data):
                return None
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker == _END:
            return None
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
