import pytest

from service.domain.media import MediaKind
from service.media.sniffing import FileType, mismatch, sniff

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"
PNG = b"\x89PNG\r\n\x1a\n"
MP4 = b"\x00\x00\x00\x20ftypisom"
OGG_OPUS = b"OggS\x00\x02" + bytes(22) + b"OpusHead\x01"
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 "
ANIMATED = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (JPEG, "image/jpeg"),
        (PNG, "image/png"),
        (b"GIF89a", "image/gif"),
        (MP4, "video/mp4"),
        (b"\x00\x00\x00\x20ftypM4A ", "audio/mp4"),
        (b"\x00\x00\x00\x20ftyp3gp5", "video/3gpp"),
        (b"\x00\x00\x00\x20ftypqt  ", "video/quicktime"),
        (b"\x1a\x45\xdf\xa3", "video/webm"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\xff\xf1\x50", "audio/aac"),
        (b"\xff\xf9\x50", "audio/aac"),
        (b"#!AMR\n", "audio/amr"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"%PDF-1.7", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
    ],
)
def test_a_type_is_recognised_by_its_first_bytes(head: bytes, found: str) -> None:
    assert sniff(head) == FileType(found)


def test_a_voice_note_and_an_animated_sticker_are_recognised() -> None:
    assert sniff(OGG_OPUS) == FileType("audio/ogg", is_opus=True)
    assert sniff(b"OggS\x00\x02" + bytes(22) + b"\x01vorbis") == FileType("audio/ogg")
    assert sniff(ANIMATED) == FileType("image/webp", is_animated=True)
    assert sniff(WEBP) == FileType("image/webp")


@pytest.mark.parametrize("head", [b"", b"\xff", b"hello", b"RIFF", b"\xff\xe8\x00", b"<html>"])
def test_other_bytes_are_no_known_type(head: bytes) -> None:
    assert sniff(head) is None


@pytest.mark.parametrize(
    ("kind", "declared", "head"),
    [
        (MediaKind.IMAGE, "image/jpeg", JPEG),
        (MediaKind.IMAGE, "image/jpg", JPEG),
        (MediaKind.IMAGE, "image/webp", WEBP),
        (MediaKind.VIDEO, "video/mp4", MP4),
        (MediaKind.AUDIO, "audio/mp4", MP4),
        (MediaKind.AUDIO, "audio/ogg; codecs=opus", OGG_OPUS),
        (MediaKind.AUDIO, "audio/webm", b"\x1a\x45\xdf\xa3"),
        (MediaKind.STICKER, "image/webp", ANIMATED),
        (MediaKind.DOCUMENT, "application/pdf", b"anything"),
        (MediaKind.DOCUMENT, "image/jpeg", PNG),
    ],
)
def test_what_is_declared_and_found_agrees(kind: MediaKind, declared: str, head: bytes) -> None:
    assert mismatch(kind, declared, head) == ""


@pytest.mark.parametrize(
    ("kind", "declared", "head", "words"),
    [
        (MediaKind.IMAGE, "image/jpeg", PNG, "those of image/png, not of image/jpeg"),
        (MediaKind.IMAGE, "image/jpeg", b"<html>", "not those of image/jpeg"),
        (MediaKind.IMAGE, "image/gif", b"GIF89a", "no type of image"),
        (MediaKind.IMAGE, "video/mp4", MP4, "no type of image"),
        (MediaKind.VIDEO, "audio/mp4", MP4, "no type of video"),
        (MediaKind.VIDEO, "audio/webm", b"\x1a\x45\xdf\xa3", "no type of video"),
        (MediaKind.VIDEO, "video/mp4", b"\x00\x00\x00\x20ftypM4A ", "those of audio/mp4"),
        (MediaKind.AUDIO, "audio/ogg", b"ID3\x04", "those of audio/mpeg"),
        (MediaKind.STICKER, "image/png", PNG, "no type of sticker"),
    ],
)
def test_what_does_not_agree_is_explained(kind: MediaKind, declared: str, head: bytes, words: str) -> None:
    assert words in mismatch(kind, declared, head)
