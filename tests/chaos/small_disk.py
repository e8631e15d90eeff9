"""A file system of a few megabytes in memory, which can be full."""

import asyncio
import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_PIECE_BYTES = 64 * 1024
_LOOK_S = 0.05
"""How soon space that a server has freed is taken again."""


def can_mount() -> bool:
    """Return whether this process may mount a file system; in many containers root may not."""
    with tempfile.TemporaryDirectory() as name:
        disk = SmallDisk(Path(name), 1)
        try:
            disk.mount()
        except (OSError, subprocess.CalledProcessError):
            return False
        disk.unmount()
    return True


class SmallDisk:
    """Mounted on an empty folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder = folder
        self._megabytes = megabytes

    def mount(self) -> None:
        """Mount it. Raises CalledProcessError."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "zap-chaos", str(self._folder)]
        subprocess.run(command, check=True, capture_output=True)

    def unmount(self) -> None:
        """Take it away, with all that is on it, as soon as the last process has left it."""
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True, capture_output=True)  # noqa: S607 - as above

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Take every byte that is free until the block ends, and give all of it back."""
        is_over = asyncio.Event()
        filling = asyncio.create_task(self._keep_full(is_over))
        try:
            yield
        finally:
            is_over.set()
            # Not cancelled: its thread would go on.
            await filling
            self._ballast.unlink(missing_ok=True)

    async def _keep_full(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await asyncio.to_thread(self._fill)
            await asyncio.sleep(_LOOK_S)

    @property
    def _ballast(self) -> Path:
        return self._folder / "ballast"

    def _fill(self) -> None:
        ballast = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (_PIECE_BYTES, 512):
                with contextlib.suppress(_Full):
                    while True:
                        _write(ballast, size)
        finally:
            os.close(ballast)


class _Full(Exception):
    """No byte is left."""


def _write(file: int, size: int) -> None:
    try:
        os.write(file, bytes(size))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from error
