from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.domain.media import MediaKind, StoredMedia
from service.media.reference import UnreadableReference, kind_of, number_of, read_reference, write_reference
from service.telemetry.redaction import PERSONAL, loggable
from zap.v1 import media_pb2

MEDIA = StoredMedia(
    MediaKind.AUDIO,
    "/v/t62/1.enc?oh=1",
    b"k" * 32,
    b"e" * 32,
    b"s" * 32,
    1234,
    "audio/ogg; codecs=opus",
    datetime(2030, 1, 31, 12, tzinfo=UTC),
)
#: Written by the first release. A reference is good for weeks, so each later release must read it.
OF_FIRST_RELEASE = bytes.fromhex(
    "0162b67f1a42f8bc7b080312112f762f7436322f312e656e633f6f683d311a206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b"
    "6b6b6b6b6b6b6b6b6b6b6b6b6b6b222065656565656565656565656565656565656565656565656565656565656565652a20"
    "737373737373737373737373737373737373737373737373737373737373737330d2093a16617564696f2f6f67673b20636f"
    "646563733d6f707573420608c09c908807"
)


def test_a_reference_holds_all_of_a_file() -> None:
    assert read_reference(write_reference(MEDIA)) == MEDIA
    bare = replace(MEDIA, kind=MediaKind.STICKER, create_time=None)
    assert read_reference(write_reference(bare)) == bare


def test_a_reference_of_the_first_release_is_read() -> None:
    assert read_reference(OF_FIRST_RELEASE) == MEDIA


def test_a_reference_is_short() -> None:
    assert len(write_reference(replace(MEDIA, direct_path="/" + "x" * 400))) < 700


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda reference: b"", "not a reference"),
        (lambda reference: b"\x02" + reference[1:], "later release"),
        (lambda reference: reference[:-1], "damaged"),
        (lambda reference: reference[:3], "damaged"),
        (lambda reference: reference + b"x", "damaged"),
        (lambda reference: reference[:20] + b"?" + reference[21:], "damaged"),
    ],
)
def test_other_bytes_are_refused(change: object, words: str) -> None:
    assert callable(change)
    with pytest.raises(UnreadableReference, match=words):
        read_reference(change(write_reference(MEDIA)))


def test_the_kinds_are_those_of_the_protos() -> None:
    assert {kind: kind_of(number_of(kind)) for kind in MediaKind} == {kind: kind for kind in MediaKind}
    assert len(MediaKind) == len(media_pb2.MediaKind.keys()) - 1
    for number in (0, 99):
        with pytest.raises(ValueError, match=str(number)):
            kind_of(number)


def test_nothing_of_a_file_is_logged() -> None:
    shown = loggable(media_pb2.UploadResponse(reference=b"r", sha256=b"s", size=3))
    assert (shown["reference"], shown["sha256"]) == (PERSONAL, PERSONAL)
    request = media_pb2.UploadRequest(chunk=b"secret")
    assert loggable(request) == {"chunk": PERSONAL}
