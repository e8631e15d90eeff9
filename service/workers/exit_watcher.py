"""Kills a session process, waits for its death and explains it."""

import asyncio
import contextlib
import logging
import os
import signal
import time

from service.workers import exit_diagnostics
from service.workers.zygote_process import Child

_STATUS_TIMEOUT_S = 1.0
_REMINDER_INTERVAL_S = 5.0
_STACK_DUMP_TIMEOUT_S = 0.2


class ExitWatcher:
    """Watches the pidfd of a process, which becomes readable only once the process is dead."""

    def __init__(self, child: Child, log: logging.LoggerAdapter[logging.Logger]) -> None:
        """`log` names the session in each line."""
        self._child = child
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._killed_at: float | None = None
        self._loop.add_reader(child.pidfd, self._on_readable)

    @property
    def exited(self) -> bool:
        """Return whether the process is known to be dead."""
        return self._exited.is_set()

    @property
    def overdue(self) -> float:
        """Seconds since the process was killed; 0 if it was not killed, or is dead."""
        return 0.0 if self._killed_at is None or self.exited else time.monotonic() - self._killed_at

    async def wait(self) -> None:
        """Wait until the process is dead."""
        await self._exited.wait()

    async def kill(self) -> None:
        """Kill the process and wait until it is dead, without a limit."""
        self.kill_soon()
        while not self.exited:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REMINDER_INTERVAL_S):
                    await self.wait()
                return
            self._log.error("the session's process was killed and does not die")

    def kill_soon(self) -> None:
        """Kill the process without waiting for its death."""
        if self._killed_at is None:
            self._killed_at = time.monotonic()
        self._signal(signal.SIGKILL)

    async def request_stack_dump(self) -> None:
        """Have the process dump the stacks of its threads; continue it first if a signal has stopped it."""
        self._signal(signal.SIGUSR1)
        self._signal(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STACK_DUMP_TIMEOUT_S):
                await self.wait()

    async def status(self) -> int | None:
        """Return the exit status of the dead process, negative for a signal; None if it is unknown."""
        if (status := self._reap()) is not None:
            return status
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                return await asyncio.shield(self._child.exit_status)
        except (TimeoutError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return self._reap()

    def describe(self, status: int | None) -> str:
        """Return why the process died, from its exit status and its stderr."""
        parts = (exit_diagnostics.describe_exit(status), exit_diagnostics.exit_report(self._child.stderr))
        return "; ".join(filter(None, parts))

    def close(self) -> None:
        """Close the descriptors of the dead process."""
        self._loop.remove_reader(self._child.pidfd)
        self._child.connection.close()
        os.close(self._child.stderr)
        if self._child.exit_status.done():
            self._release()
        else:
            # The zygote is stuck. If it dies before it reaps the child, this process may have to.
            self._child.exit_status.add_done_callback(lambda _: self._release())

    def _release(self) -> None:
        self._reap()
        os.close(self._child.pidfd)

    def _reap(self) -> int | None:
        """Reap the child and return its exit status; None if this process is not its parent.

        After the zygote's death this process is the parent, if it is the first one of a container or adopts children.
        """
        try:
            result = os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def _signal(self, number: int) -> None:
        if not self.exited:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child.pidfd, number)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._child.pidfd)
        self._exited.set()
