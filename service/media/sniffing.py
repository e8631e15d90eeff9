"""Recognises types of files by their first bytes, and compares them with what a caller declares. Pure."""

from dataclasses import dataclass, replace

from service.domain.media import MediaKind, StoredMedia

HEAD_BYTES = 64
"""First bytes of a file that are looked at."""

_FTYP_BRANDS = {b"M4A ": "audio/mp4", b"M4B ": "audio/mp4", b"qt  ": "video/quicktime"}
_SAME = {
    "image/jpg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-aac": "audio/aac",
    "audio/aacp": "audio/aac",
    "audio/3gpp": "video/3gpp",
    "audio/webm": "video/webm",
    "audio/opus": "audio/ogg",
    "application/ogg": "audio/ogg",
}
"""Names of one type, for the comparison only."""
_CONTAINERS = {"video/mp4": frozenset({"video/mp4", "audio/mp4"})}
"""Types that a container of this brand may be declared as: an MP4 file with audio alone often has a brand of videos."""
_OF_KIND = {
    MediaKind.IMAGE: frozenset({"image/jpeg", "image/png", "image/webp"}),
    MediaKind.VIDEO: frozenset({"video/mp4", "video/3gpp", "video/quicktime", "video/webm"}),
    MediaKind.AUDIO: frozenset(
        {"audio/ogg", "audio/mpeg", "audio/mp4", "audio/aac", "audio/amr", "audio/wav", "video/3gpp", "video/webm"}
    ),
    MediaKind.STICKER: frozenset({"image/webp"}),
}


@dataclass(frozen=True)
class FileType:
    """Describes a type of file."""

    mime_type: str
    is_animated: bool = False
    """An animated WebP."""
    is_opus: bool = False
    """Ogg with Opus, which a voice note must be."""


def sniff(head: bytes) -> FileType | None:
    """Return the type of a file with these first bytes, at least HEAD_BYTES or all; None if it is unknown."""
    if head[:4] == b"RIFF":
        return _riff(head)
    if head[4:8] == b"ftyp":
        return FileType(_ftyp(head[8:12]))
    if head[:4] == b"OggS":
        return FileType("audio/ogg", is_opus=b"OpusHead" in head)
    return next((FileType(mime) for magic, mime in _MAGIC if head.startswith(magic)), _mpeg_audio(head))


def described(media: StoredMedia, head: bytes) -> StoredMedia:
    """Return a file with what its first bytes show of it."""
    found = sniff(head) or FileType("")
    return replace(media, is_opus=found.is_opus, is_animated=found.is_animated)


def mismatch(kind: MediaKind, declared: str, head: bytes) -> str:
    """Return why a file cannot be of this kind and declared MIME type; empty if it can.

    A document may be anything.
    """
    if kind is MediaKind.DOCUMENT:
        return ""
    mime = declared.partition(";")[0].strip().lower()
    name = _SAME.get(mime, mime)
    allowed = _OF_KIND[kind]
    if name not in allowed or (kind is MediaKind.VIDEO and not mime.startswith("video/")):
        return f"{mime} is no type of {kind.name.lower()} that WhatsApp shows; use one of {', '.join(sorted(allowed))}"
    found = sniff(head)
    if found is None:
        return f"the first bytes of the file are not those of {mime}, nor of another known type"
    if name not in _CONTAINERS.get(found.mime_type, {found.mime_type}):
        return f"the first bytes of the file are those of {found.mime_type}, not of {mime}"
    return ""


_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"#!AMR", "audio/amr"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"ID3", "audio/mpeg"),
)


def _riff(head: bytes) -> FileType | None:
    form = head[8:12]
    if form == b"WAVE":
        return FileType("audio/wav")
    if form == b"WEBP":
        return FileType("image/webp", is_animated=head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 0x02))
    return None


def _ftyp(brand: bytes) -> str:
    if brand[:3] in (b"3gp", b"3g2"):
        return "video/3gpp"
    return _FTYP_BRANDS.get(brand, "video/mp4")


def _mpeg_audio(head: bytes) -> FileType | None:
    """Recognise a frame of AAC (ADTS) or MPEG audio by its sync word and layer."""
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return FileType("audio/aac")
    return FileType("audio/mpeg") if head[1] & 0x06 else None
