import io

import pytest
from PIL import Image

from service.protocol.jpeg import jpeg_size
from tests.pictures import jpeg


@pytest.mark.parametrize("size", [(1, 1), (640, 640), (300, 200)])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_of_a_jpeg_is_read(size: tuple[int, int], progressive: bool) -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "x" * 5000
    Image.new("L", size).save(out, "JPEG", progressive=progressive, exif=exif)
    assert jpeg_size(out.getvalue()) == size


def test_fill_bytes_and_markers_without_a_length_are_skipped() -> None:
    data = jpeg(20, 30)
    assert jpeg_size(data[:2] + b"\xff\xff\x01\xff\xd0\xff" + data[2:]) == (20, 30)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8\xff\xc0\0\x11",
    ],
)
def test_other_data_and_cut_data_is_no_jpeg(data: bytes) -> None:
    assert jpeg_size(data) is None


def test_no_beginning_of_a_jpeg_is_read_beyond_its_end() -> None:
    data = jpeg()
    assert {jpeg_size(data[:end]) for end in range(len(data) + 1)} == {None, (64, 64)}
