"""The death of one session process: brought about, awaited and explained through its pidfd."""

import asyncio
import contextlib
import logging
import os
import signal
import time

from service.pool.last_words import describe_exit, everything, last_words
from service.pool.zygote_process import Child

_log = logging.getLogger(__name__)

_REPORT_SECONDS = 1.0
_REMIND_SECONDS = 5.0
_DUMP_SECONDS = 0.2


class Death:
    """A pidfd becomes readable when its process is dead, and never before: that is the confirmation."""

    def __init__(self, child: Child, session_id: str) -> None:
        self._child = child
        self._session_id = session_id
        self._loop = asyncio.get_running_loop()
        self._happened = asyncio.Event()
        self._killed_at: float | None = None
        self._loop.add_reader(child.pidfd, self._on_readable)

    @property
    def happened(self) -> bool:
        """Whether it is dead for certain."""
        return self._happened.is_set()

    @property
    def overdue(self) -> float:
        """Seconds for which it has been killed and not been dead; 0 if it was not killed, or is dead."""
        return 0.0 if self._killed_at is None or self.happened else time.monotonic() - self._killed_at

    async def wait(self) -> None:
        """Until it is dead."""
        await self._happened.wait()

    async def kill(self) -> None:
        """Kill it, and return when it is dead, however long that takes."""
        self.kill_soon()
        while not self.happened:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REMIND_SECONDS):
                    await self.wait()
                return
            _log.error("session %s: process %d was killed and does not die", self._session_id, self._child.pid)

    def kill_soon(self) -> None:
        """Kill it; do not wait."""
        if self._killed_at is None:
            self._killed_at = time.monotonic()
        self._signal(signal.SIGKILL)

    async def dump_and_kill(self) -> None:
        """Have it write down where all its threads are, for as long as that may take, and kill it."""
        self._signal(signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DUMP_SECONDS):
                await self.wait()
        await self.kill()

    async def status(self) -> int | None:
        """How it exited, once it is dead; None if nobody knows."""
        # If its parent, the zygote, died, its parent may be this very process: the first one in a container, or one
        # that has adopted orphans. Then it is ours to reap.
        with contextlib.suppress(ChildProcessError):
            result = os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - WNOHANG
            if result is not None:
                return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                return await asyncio.shield(self._child.exit_status)
        except (TimeoutError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return None

    def words(self, status: int | None) -> str:
        """Why it is dead."""
        return "; ".join(filter(None, (describe_exit(status), last_words(self._child.stderr))))

    def stderr(self) -> str:
        """Everything it wrote there."""
        return everything(self._child.stderr)

    def close(self) -> None:
        """Let go of the descriptors, once it is dead."""
        self._loop.remove_reader(self._child.pidfd)
        self._child.close()

    def _signal(self, number: int) -> None:
        if not self.happened:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child.pidfd, number)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._child.pidfd)
        self._happened.set()
