"""Reads and writes the machine code of this process."""

import contextlib
import ctypes
import mmap
import os
from typing import Any

_MEMORY = "/proc/self/mem"
_READ_EXECUTE = mmap.PROT_READ | mmap.PROT_EXEC


class _AddressInfo(ctypes.Structure):
    """The result of dladdr(3) for an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def load_base(function: Any) -> int:
    """Return the address at which the library of a C function is loaded. Raise OSError if the linker does not know."""
    info = _AddressInfo()
    ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    if not info.base:
        raise OSError("the linker does not know where the library is loaded")
    return int(info.base)


def read(address: int, length: int) -> bytes:
    """Return `length` bytes of memory from `address` on."""
    return ctypes.string_at(address, length)


def write(address: int, content: bytes) -> None:
    """Overwrite memory from `address` on. Raise OSError if the system permits neither of the two ways to do so."""
    try:
        _write_through_kernel(address, content)
    except OSError as refused:
        try:
            _write_unprotected(address, content)
        except OSError as also_refused:
            raise OSError(f"{_MEMORY}: {refused}; mprotect: {also_refused}") from also_refused


def _write_through_kernel(address: int, content: bytes) -> None:
    """Have the kernel write: it copies the page, keeps its protection and flushes the instruction cache.

    This works under PR_SET_MDWE. It is refused after a setuid without exec, and by kernels that restrict the file.
    """
    memory = os.open(_MEMORY, os.O_RDWR)
    try:
        os.pwrite(memory, content, address)
    finally:
        os.close(memory)


def _write_unprotected(address: int, content: bytes) -> None:
    """Make the pages writable, write, and protect them again. They stay executable, because other threads run there."""
    flush = _flush_of_instructions()
    first = address - address % mmap.PAGESIZE
    length = address + len(content) - first
    _protect(first, length, _READ_EXECUTE | mmap.PROT_WRITE)
    ctypes.memmove(address, content, len(content))
    _protect(first, length, _READ_EXECUTE)
    if flush is not None:
        flush(ctypes.c_void_p(address), ctypes.c_void_p(address + len(content)))


def _protect(address: int, length: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), protection):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _flush_of_instructions() -> Any:
    """Return the flush of the instruction cache on arm64; None on processors that need no flush."""
    if os.uname().machine != "aarch64":
        return None
    with contextlib.suppress(AttributeError):
        return ctypes.CDLL("libgcc_s.so.1")["__clear_cache"]
    raise OSError("libgcc has no __clear_cache")
