"""Aims the real neonize at a simulator. Called in each session process before its first connect.

``ZAP_WORKER_PRELOAD=simulator.preload:aim``. The wheel's file is not changed. After neonize has loaded its Go library,
some constants are overwritten in the memory of this process:

- the public key that signs WhatsApp's Noise certificates, with the simulator's (``SIMULATOR_NOISE_ROOT``, hex);
- WhatsApp's WebSocket URL, with the simulator's (``SIMULATOR_URL``), unless clients use the proxy;
- the keepalive times, if a test needs shorter ones (``SIMULATOR_KEEPALIVE``, seconds).

Only the standard library is imported here, so that the session process loads no module of the simulator.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NOISE_ROOT_VARIABLE = "SIMULATOR_NOISE_ROOT"
URL_VARIABLE = "SIMULATOR_URL"
KEEPALIVE_VARIABLE = "SIMULATOR_KEEPALIVE"

_PROT_READ = 1
_PROT_WRITE = 2


class CannotAim(RuntimeError):
    """The neonize in this process cannot be aimed at a simulator."""


@dataclass(frozen=True)
class _Constant:
    """A constant of the library: its value, and its address in the wheel for which this module was written."""

    name: str
    value: bytes
    file_offset: int


_NOISE_ROOT = _Constant(
    "Noise root key",
    bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b"),
    0x1197520,
)
_SECOND = 10**9
_KEEPALIVE = _Constant(
    "keepalive times",  # answer timeout; minimum and maximum interval; time until a forced reconnect
    struct.pack("<4q", 10 * _SECOND, 20 * _SECOND, 30 * _SECOND, 180 * _SECOND),
    0x11955E0,
)
_URL = _Constant("WebSocket URL", b"wss://web.whatsapp.com/ws/chat", 0x92BD5F)


@dataclass(frozen=True)
class _Mapping:
    """A part of the library's file in this process's memory."""

    start: int
    end: int
    file_offset: int
    is_writable: bool


def aim(environ: Mapping[str, str] = os.environ) -> None:
    """Overwrite the constants that the environment selects. Raise CannotAim if one does not occur exactly once."""
    noise_root = _noise_root(environ)
    url = _url(environ)
    mappings = list(_library_mappings())
    if not mappings:
        raise CannotAim(f"neonize's Go library is not loaded in this process (installed: {_installed()})")
    _overwrite(mappings, _NOISE_ROOT, noise_root)
    if url is not None:
        _overwrite(mappings, _URL, url)
    if (keepalive := _keepalive(environ)) is not None:
        _overwrite(mappings, _KEEPALIVE, keepalive)


def _noise_root(environ: Mapping[str, str]) -> bytes:
    text = environ.get(NOISE_ROOT_VARIABLE, "").strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != len(_NOISE_ROOT.value):
        raise CannotAim(
            f"{NOISE_ROOT_VARIABLE} must be the simulator's root key, 64 hexadecimal digits; it is {text!r}"
        )
    return key


def _url(environ: Mapping[str, str]) -> bytes | None:
    """Return the URL, padded with an ignored query, because the Go string keeps its length."""
    text = environ.get(URL_VARIABLE, "").strip()
    if not text:
        return None
    url, room = text.encode(), len(_URL.value)
    if not text.startswith(("ws://", "wss://")) or len(url) > room or (len(url) < room and b"?" in url):
        raise CannotAim(f"{URL_VARIABLE} must be ws://host:port/path without a query, at most {room} bytes: {text!r}")
    return url if len(url) == room else (url + b"?").ljust(room, b"x")


def _keepalive(environ: Mapping[str, str]) -> bytes | None:
    text = environ.get(KEEPALIVE_VARIABLE, "").strip()
    if not text:
        return None
    every = round(float(text) * _SECOND)
    # The maximum must exceed the minimum. The time until a forced reconnect stays unchanged.
    return struct.pack("<4q", every, every, every + _SECOND // 10, 180 * _SECOND)


def _library_mappings() -> Iterator[_Mapping]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[1][0] != "r":
            continue
        name = fields[5].removesuffix(" (deleted)").rpartition("/")[2]
        if name.startswith("neonize") and name.endswith(".so"):
            start, _, end = fields[0].partition("-")
            yield _Mapping(int(start, 16), int(end, 16), int(fields[2], 16), "w" in fields[1])


def _overwrite(mappings: list[_Mapping], constant: _Constant, replacement: bytes) -> None:
    mapping, address = _locate(mappings, constant, replacement)
    size = len(replacement)
    if mapping.is_writable:
        ctypes.memmove(address, replacement, size)
    else:
        first = address - address % mmap.PAGESIZE
        length = -(-(address + size - first) // mmap.PAGESIZE) * mmap.PAGESIZE
        _protect(first, length, _PROT_READ | _PROT_WRITE)
        ctypes.memmove(address, replacement, size)
        _protect(first, length, _PROT_READ)
    if ctypes.string_at(address, size) != replacement:
        raise CannotAim(f"the {constant.name} could not be overwritten")


def _locate(mappings: list[_Mapping], constant: _Constant, replacement: bytes) -> tuple[_Mapping, int]:
    """Return the constant's address: the known one (also if replaced before), else that of its only occurrence."""
    size = len(constant.value)
    for mapping in mappings:
        address = mapping.start + constant.file_offset - mapping.file_offset
        is_mapped = mapping.start <= address <= mapping.end - size
        if is_mapped and ctypes.string_at(address, size) in (constant.value, replacement):
            return mapping, address
    matches = [(mapping, address) for mapping in mappings for address in _occurrences(mapping, constant.value)]
    if len(matches) != 1:
        raise CannotAim(
            f"the {constant.name} is in {len(matches)} places of neonize's Go library, expected 1: this is written for "
            f"neonize 0.5.2, installed is {_installed()}"
        )
    return matches[0]


def _occurrences(mapping: _Mapping, value: bytes) -> Iterator[int]:
    image = ctypes.string_at(mapping.start, mapping.end - mapping.start)
    at = image.find(value)
    while at >= 0:
        yield mapping.start + at
        at = image.find(value, at + 1)


def _protect(address: int, length: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), protection) != 0:
        raise CannotAim(f"memory of neonize's Go library cannot be made writable: {os.strerror(ctypes.get_errno())}")


def _installed() -> str:
    # Only for an error: it has 30 modules that no session process has.
    from importlib import metadata  # noqa: PLC0415

    try:
        return f"neonize {metadata.version('neonize')}"
    except metadata.PackageNotFoundError:
        return "no neonize"
