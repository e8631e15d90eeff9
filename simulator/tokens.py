"""Reads the token dictionaries of WhatsApp's binary XML from the installed neonize library.

The client writes frequent words as one or two bytes. Which words those are belongs to the wheel under test, so they are
read from it: the dictionaries are arrays of Go strings, and in a shared library the pointer of every string is a
relocation. Nothing is loaded or executed, and nothing is copied into this repository.
"""

from __future__ import annotations

import functools
import importlib.util
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

#: R_X86_64_RELATIVE and R_AARCH64_RELATIVE: "this location holds a pointer to that address".
_RELATIVE_RELOCATIONS = frozenset({8, 1027})
_STRING_HEADER = 16  # pointer, length
_SLICE_HEADER = 24  # pointer, length, capacity
SINGLE_BYTE_TOKENS = 236
DICTIONARIES = 4
DICTIONARY_SIZE = 256


class TokensNotFound(RuntimeError):
    """The installed neonize library does not contain its dictionaries in the expected form."""


@dataclass(frozen=True)
class Tokens:
    """The words for single bytes and for pairs (dictionary, byte)."""

    single: tuple[str, ...]
    double: tuple[tuple[str, ...], ...]


def library_path() -> Path:
    """Return the path of the installed neonize's shared library, without importing it."""
    spec = importlib.util.find_spec("neonize")
    if spec is None or not spec.submodule_search_locations:
        raise TokensNotFound("neonize is not installed")
    candidates = sorted(Path(spec.submodule_search_locations[0]).glob("neonize-*.so"))
    if len(candidates) != 1:
        raise TokensNotFound(f"expected one neonize-*.so beside neonize, found {[path.name for path in candidates]}")
    return candidates[0]


@functools.cache
def installed_tokens() -> Tokens:
    """Return the dictionaries of the installed neonize."""
    with library_path().open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return _Library(image).tokens()


class _Library:
    """An ELF file and the strings in it."""

    def __init__(self, image: mmap.mmap) -> None:
        self._image = image
        self._segments = list(self._loaded_segments())
        self._pointers = self._relative_relocations()

    def tokens(self) -> Tokens:
        second_single = self._array_with("xmlstreamstart", "xmlstreamend")
        first_dictionary = self._array_with("read-self", "active")
        single = tuple(self._strings(second_single - _STRING_HEADER, SINGLE_BYTE_TOKENS))
        slices = [source for source, target in self._pointers.items() if target == first_dictionary]
        if len(slices) != 1:
            raise TokensNotFound(f"expected one list of dictionaries, found {len(slices)}")
        arrays = [self._pointers[slices[0] + index * _SLICE_HEADER] for index in range(DICTIONARIES)]
        return Tokens(single, tuple(tuple(self._strings(array, DICTIONARY_SIZE)) for array in arrays))

    def _loaded_segments(self) -> list[tuple[int, int, int]]:
        """Return (address, offset in the file, size in the file) of each loaded segment."""
        offset, size, count = self._unpack("<Q", 32) + self._unpack("<HH", 54)
        segments = []
        for index in range(count):
            kind, at, address, length = self._unpack("<I4xQQ8xQ", offset + index * size)
            if kind == 1:  # PT_LOAD
                segments.append((address, at, length))
        return segments

    def _relative_relocations(self) -> dict[int, int]:
        offset, size, count = self._unpack("<Q", 40) + self._unpack("<HH", 58)
        pointers: dict[int, int] = {}
        for index in range(count):
            kind, at, length = self._unpack("<4xI16xQQ", offset + index * size)
            if kind == 4:  # SHT_RELA
                entries = struct.iter_unpack("<QQq", self._image[at : at + length])
                pointers.update(
                    (source, target) for source, info, target in entries if info & 0xFFFFFFFF in _RELATIVE_RELOCATIONS
                )
        return pointers

    def _array_with(self, first: str, second: str) -> int:
        """Return the only address at which these two strings follow each other in an array."""
        wanted = self._addresses_of(first)
        sources = [
            source
            for source, target in self._pointers.items()
            if target in wanted and self._string(source) == first and self._string(source + _STRING_HEADER) == second
        ]
        if len(sources) != 1:
            raise TokensNotFound(f"expected {first!r}, {second!r} at one location, found {len(sources)}")
        return sources[0]

    def _addresses_of(self, text: str) -> set[int]:
        needle = text.encode()
        found: set[int] = set()
        at = self._image.find(needle)
        while at >= 0:
            found.update(address + at - start for address, start, size in self._segments if start <= at < start + size)
            at = self._image.find(needle, at + 1)
        return found

    def _strings(self, array: int, count: int) -> list[str]:
        return [self._string(array + index * _STRING_HEADER) for index in range(count)]

    def _string(self, header: int) -> str:
        target = self._pointers.get(header)
        if target is None:
            return ""
        (length,) = self._unpack("<Q", self._offset(header + 8))
        if length > 256:
            return ""
        start = self._offset(target)
        return self._image[start : start + length].decode("ascii", errors="replace")

    def _offset(self, address: int) -> int:
        for start, at, size in self._segments:
            if start <= address < start + size:
                return address - start + at
        raise TokensNotFound(f"address {address:#x} is not in the file")

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(layout, self._image, offset)
