"""Define the kinds of media and the limits of their sizes. docs/media.md explains how WhatsApp stores files."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

LARGEST_FILE = 2**31 - 1
"""Bytes of the largest file: the library takes the size as a C int."""

_PATH = re.compile(r"/[!-\"$-~]{0,4095}")


class MediaKind(enum.Enum):
    """Says what a file is to WhatsApp. The names are those of zap.v1.MediaKind."""

    IMAGE = "IMAGE"
    VIDEO = "VIDEO"
    AUDIO = "AUDIO"
    DOCUMENT = "DOCUMENT"
    STICKER = "STICKER"


@dataclass(frozen=True)
class StoredMedia:
    """Describes an encrypted file at WhatsApp, and holds what decrypts it."""

    kind: MediaKind
    direct_path: str = field(repr=False)
    """Path and query on any of WhatsApp's media hosts; begins with a slash."""
    media_key: bytes = field(repr=False)
    encrypted_sha256: bytes = field(repr=False)
    sha256: bytes = field(repr=False)
    """Empty: the sender did not state it."""
    size: int | None
    """Bytes of the file itself; None: the sender did not state it."""
    mime_type: str = ""
    create_time: datetime | None = None
    is_opus: bool = False
    """Ogg with Opus, which a voice note must be."""
    is_animated: bool = False
    """An animated WebP."""


@dataclass(frozen=True)
class NewUpload:
    """Holds what a caller says of a file before its bytes."""

    session_id: str
    kind: MediaKind
    mime_type: str
    size: int


@dataclass(frozen=True)
class MediaLimits:
    """Holds the settings of a node for media. Sizes are in bytes, times in seconds."""

    largest: Mapping[MediaKind, int]
    """Largest file to upload, by kind; for stickers, an animated one."""
    largest_still_sticker: int
    largest_download: int
    upload_memory: int
    """Files that are being uploaded may have so many bytes together."""
    downloads: int
    """Downloads at the same time."""
    timeout: float
    """Longest time of one upload or download."""


def is_path_at_host(path: str) -> bool:
    """Return whether this can be asked of a media host: a path with its query, in printable ASCII, no fragment."""
    return _PATH.fullmatch(path) is not None
