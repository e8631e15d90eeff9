from dataclasses import replace

import pytest

from service.domain.errors import DataLoss
from service.domain.media import MediaKind, StoredMedia
from service.media.decryption import DecryptingStream, encrypted_size
from tests.stored_media import stored


def read(body: bytes, media: StoredMedia, piece: int = 7) -> tuple[bytes, bytes]:
    """Return what came before all was checked, and what came after."""
    stream = DecryptingStream(media)
    early = b"".join(stream.update(body[at : at + piece]) for at in range(0, len(body), piece))
    return early, stream.finish()


@pytest.mark.parametrize("kind", MediaKind)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 1000])
@pytest.mark.parametrize("piece", [1, 16, 25, 27, 5000])
def test_a_file_is_the_same_in_pieces_of_any_size(kind: MediaKind, size: int, piece: int) -> None:
    data = bytes(number % 251 for number in range(size))
    body, media = stored(data, kind)
    assert len(body) == encrypted_size(size)
    early, last = read(body, media, piece)
    assert early + last == data


@pytest.mark.parametrize("size", [16, 40, 1000])
def test_the_last_block_is_held_back_until_all_is_checked(size: int) -> None:
    body, media = stored(bytes(size))
    early, last = read(body, media)
    assert len(last) == size % 16
    assert len(early) == size - size % 16
    stream = DecryptingStream(media)
    assert len(stream.update(body[:-11])) < size


def flipped(body: bytes, at: int) -> bytes:
    changed = bytearray(body)
    changed[at] ^= 1
    return bytes(changed)


BODY, MEDIA = stored(b"x" * 1000)


@pytest.mark.parametrize(
    ("body", "media", "words"),
    [
        (flipped(BODY, 100), MEDIA, "authentication code"),
        (flipped(BODY, -1), MEDIA, "authentication code"),
        (BODY, replace(MEDIA, media_key=bytes(32)), "authentication code"),
        (BODY, replace(MEDIA, kind=MediaKind.IMAGE), "authentication code"),
        (BODY, replace(MEDIA, encrypted_sha256=bytes(32)), "hash of the encrypted file"),
        (BODY, replace(MEDIA, sha256=bytes(32)), "hash of the file"),
        (BODY, replace(MEDIA, size=999), "1000 bytes, and 999 were stated"),
        (BODY[:-16], MEDIA, "authentication code"),
        (BODY[:-1], MEDIA, "length"),
        (BODY[:9], MEDIA, "length"),
        (b"", MEDIA, "length"),
    ],
)
def test_a_file_that_does_not_fit_is_never_complete(body: bytes, media: StoredMedia, words: str) -> None:
    stream = DecryptingStream(media)
    assert len(stream.update(body)) < 1000
    with pytest.raises(DataLoss, match=words) as damaged:
        stream.finish()
    assert damaged.value.reason == "MEDIA_DAMAGED"


def test_what_a_sender_has_not_stated_is_not_compared() -> None:
    early, last = read(BODY, replace(MEDIA, size=None, sha256=b""))
    assert early + last == b"x" * 1000
