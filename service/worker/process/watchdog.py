"""Kills this process when its run permit expires, even if it is stuck.

The node renews the run permit, a deadline on CLOCK_MONOTONIC, only after it has confirmed the session's lease. At the
deadline a kernel timer (`ITIMER_REAL`) ends the process by SIGALRM with its default action. No handler runs, so no lock
of the interpreter or of Go can prevent it, and a process that was stopped past its deadline executes nothing when it is
continued. Shortly before, faulthandler writes the stacks of all threads to a file in memory, which cannot block, and
the node reports where the process was stuck.
"""

import contextlib
import faulthandler
import os
import signal
import time

_NANOSECONDS = 1_000_000_000
_DUMP_LEAD_S = 0.3
"""How long before the deadline the stacks are dumped."""
_MIN_TIMER_S = 1e-6
"""The shortest timer, because setitimer takes 0 for "never"."""
_UNARMED_SECONDS = 60.0
"""How long a process may run from its fork to its first run permit."""


class NotPermitted(Exception):
    """There is no run permit, or it has expired."""


def limit_the_wait() -> None:
    """Have the kernel end this process unless a watchdog is armed in time. Called right after the fork."""
    signal.setitimer(signal.ITIMER_REAL, _UNARMED_SECONDS)


class Watchdog:
    """Ends the process when the latest run permit expires. It must be armed with the first one."""

    def __init__(self, dump_to: int) -> None:
        """`dump_to`: a file descriptor whose writes never block."""
        self._dump_to = dump_to
        self._deadline_ns = 0

    def arm(self, deadline_ns: int) -> None:
        """Apply the first run permit. Raise NotPermitted if there is none or it has expired."""
        if deadline_ns <= time.monotonic_ns():
            raise NotPermitted("no run permit, or one that expired before it arrived")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self.permit(deadline_ns)

    def permit(self, deadline_ns: int) -> None:
        """Extend the run permit to this deadline; ignore one that is not later than the last."""
        if deadline_ns <= self._deadline_ns:
            return
        self._deadline_ns = deadline_ns
        remaining = (deadline_ns - time.monotonic_ns()) / _NANOSECONDS
        signal.setitimer(signal.ITIMER_REAL, max(remaining, _MIN_TIMER_S))
        # The timer is relative. If this process was stopped between reading the clock and setting the timer, the timer
        # would add the time of that stop to the permit.
        if time.monotonic_ns() >= deadline_ns:
            os.kill(os.getpid(), signal.SIGKILL)
        self._plan_dump(remaining - _DUMP_LEAD_S)

    def _plan_dump(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with contextlib.suppress(RuntimeError):  # no thread can be started; the timer still ends the process
            faulthandler.dump_traceback_later(seconds, file=self._dump_to)
