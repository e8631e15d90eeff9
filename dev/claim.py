"""Who uses a server: file locks that the kernel drops when their holder dies, however it dies."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dev.errors import ServerHeldElsewhereError

# Longer than initdb on a slow disk, and than a stop that has to write out much.
PATIENCE = 60.0


class Claim:
    """One user's claim on the server of a folder.

    Two locks: `changing` is held while a server is started, joined or stopped, so that these never overlap;
    `users` is shared by everybody who uses the server, so that whoever can have it alone is the last.
    """

    def __init__(self, data_dir: Path, name: str) -> None:
        self._changing_path = data_dir / f"{name}.changing"
        self._users_path = data_dir / f"{name}.users"
        self._users: int | None = None

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Hold off every other start, join and stop."""
        descriptor = _open(self._changing_path)
        try:
            await self._lock_patiently(descriptor)
            yield
        finally:
            os.close(descriptor)

    async def _lock_patiently(self, descriptor: int) -> None:
        give_up = time.monotonic() + PATIENCE
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > give_up:
                raise ServerHeldElsewhereError(
                    f"{self._changing_path} has been locked for {PATIENCE:.0f} s: another service is starting or "
                    "stopping this server and does not finish. Stop that one, or set another ZAP_DATA_DIR."
                )
            await asyncio.sleep(0.02)

    def join(self) -> None:
        """Become a user; call with `changing` held, so that it never waits."""
        self._users = self._users if self._users is not None else _open(self._users_path)
        _try_lock(self._users, fcntl.LOCK_SH)

    def others_use_it(self) -> bool:
        """Whether anybody else uses the server; call with `changing` held. Our own place among the users is kept."""
        descriptor = _open(self._users_path) if self._users is None else self._users
        alone = _try_lock(descriptor, fcntl.LOCK_EX)
        if self._users is None:
            os.close(descriptor)
        else:
            _try_lock(descriptor, fcntl.LOCK_SH)
        return not alone

    def leave(self) -> None:
        """Stop being a user."""
        if self._users is not None:
            os.close(self._users)
            self._users = None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
