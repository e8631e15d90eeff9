"""Receives a file into memory that other processes can map: a memfd, hashed on the way and sealed at the end."""

import fcntl
import hashlib
import os
from types import TracebackType
from typing import Self

from service.media.sniffing import HEAD_BYTES

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""A process that maps the file would be killed if it shrank."""


class SealedFile:
    """A context manager around the file."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("upload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size = 0
        self.head = b""
        """The first bytes, at most HEAD_BYTES."""
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self.descriptor)

    def write(self, data: bytes) -> None:
        """Append bytes. Raise OSError if the machine has no memory for them."""
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        self._hash.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        self.size += len(data)

    def seal(self) -> bytes:
        """Let nothing change the file any more. Return its SHA-256."""
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return self._hash.digest()
