"""The death of one session process: brought about, awaited and explained through its pidfd."""

import asyncio
import contextlib
import logging
import os
import signal
import time

from service.workers import exit_diagnostics
from service.workers.zygote_process import Child

_REPORT_SECONDS = 1.0
_REMIND_SECONDS = 5.0
_STACKS_SECONDS = 0.2


class ExitWatcher:
    """A pidfd becomes readable when its process is dead, and never before: that is the confirmation."""

    def __init__(self, child: Child, log: logging.LoggerAdapter[logging.Logger]) -> None:
        """`log`: says of each line which session it is about."""
        self._child = child
        self._log = log
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
            self._log.error("the session's process was killed and does not die")

    def kill_soon(self) -> None:
        """Kill it; do not wait."""
        if self._killed_at is None:
            self._killed_at = time.monotonic()
        self._signal(signal.SIGKILL)

    async def request_stack_dump(self) -> None:
        """Have it write down where all its threads are. One that was stopped is continued: it could not do it else."""
        self._signal(signal.SIGUSR1)
        self._signal(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STACKS_SECONDS):
                await self.wait()

    async def status(self) -> int | None:
        """How it exited, once it is dead; None if nobody knows."""
        if (status := self._reap()) is not None:
            return status
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                return await asyncio.shield(self._child.exit_status)
        except (TimeoutError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return self._reap()

    def words(self, status: int | None) -> str:
        """Why it is dead."""
        words = (exit_diagnostics.describe_exit(status), exit_diagnostics.exit_report(self._child.stderr))
        return "; ".join(filter(None, words))

    def close(self) -> None:
        """Let go of the descriptors, once it is dead."""
        self._loop.remove_reader(self._child.pidfd)
        self._child.connection.close()
        os.close(self._child.stderr)
        if self._child.exit_status.done():
            self._let_go()
        else:
            # Its zygote is stuck. If that dies before it has reaped this one, it may be ours to reap.
            self._child.exit_status.add_done_callback(lambda _: self._let_go())

    def _let_go(self) -> None:
        self._reap()
        os.close(self._child.pidfd)

    def _reap(self) -> int | None:
        """Its exit status, if it is this process's to reap; else None.

        If its parent, the zygote, died, its parent may be this very process: the first one in a container, or one that
        has adopted orphans.
        """
        try:
            result = os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def _signal(self, number: int) -> None:
        if not self.happened:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child.pidfd, number)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._child.pidfd)
        self._happened.set()
