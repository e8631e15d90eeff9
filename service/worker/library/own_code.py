"""Read and write the machine code of this process."""

import contextlib
import ctypes
import mmap
import os
from typing import Any

_MEMORY = "/proc/self/mem"
_READ_EXECUTE = mmap.PROT_READ | mmap.PROT_EXEC


class _AddressInfo(ctypes.Structure):
    """What dladdr(3) says of an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def load_base(function: Any) -> int:
    """Return where the library of a C function is loaded. Raises OSError if the linker does not know."""
    info = _AddressInfo()
    ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    if not info.base:
        raise OSError("the linker does not know where the library is loaded")
    return int(info.base)


def read(address: int, length: int) -> bytes:
    """Return what is there."""
    return ctypes.string_at(address, length)


def write(address: int, content: bytes) -> None:
    """Replace what is there. Raises OSError if this system does not let a process do that, in either way."""
    try:
        _write_through_kernel(address, content)
    except OSError as refused:
        try:
            _write_unprotected(address, content)
        except OSError as also_refused:
            raise OSError(f"{_MEMORY}: {refused}; mprotect: {also_refused}") from also_refused


def _write_through_kernel(address: int, content: bytes) -> None:
    """Have the kernel write: it copies the page, keeps its protection and flushes the instruction cache.

    It works under PR_SET_MDWE. It is refused after a setuid without exec, and by kernels that restrict the file.
    """
    memory = os.open(_MEMORY, os.O_RDWR)
    try:
        os.pwrite(memory, content, address)
    finally:
        os.close(memory)


def _write_unprotected(address: int, content: bytes) -> None:
    """Write while the pages are writable. They stay executable all the time: other threads may run on them."""
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
    """Return what makes an arm64 processor read changed code anew; None where processors notice by themselves."""
    if os.uname().machine != "aarch64":
        return None
    with contextlib.suppress(AttributeError):
        return ctypes.CDLL("libgcc_s.so.1")["__clear_cache"]
    raise OSError("libgcc has no __clear_cache")
