import hashlib
import mmap
import os

import pytest

from service.media.sealed_file import SealedFile


def test_a_file_is_hashed_on_the_way_and_then_sealed() -> None:
    with SealedFile() as file:
        for piece in (b"ab", b"c" * 100, b"d"):
            file.write(piece)
        data = b"ab" + b"c" * 100 + b"d"
        assert (file.size, file.head) == (103, data[:64])
        assert file.seal() == hashlib.sha256(data).digest()
        for change in (lambda: os.pwrite(file.descriptor, b"x", 0), lambda: os.ftruncate(file.descriptor, 1)):
            with pytest.raises(PermissionError):
                change()
        with mmap.mmap(file.descriptor, 103, access=mmap.ACCESS_COPY) as mapped:
            assert mapped[:] == data
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file.descriptor)
