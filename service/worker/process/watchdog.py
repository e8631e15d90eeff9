"""What kills this process when it has no leave to go on, whatever else holds it up.

The node permits a session process to live until a moment of CLOCK_MONOTONIC, and only after it has confirmed the
session's lease. A timer of the kernel's (`ITIMER_REAL`) then ends the process by SIGALRM, whose disposition is the
default: no handler runs, so neither a lock of the interpreter nor one of Go's can keep it from dying, and a process
that was stopped past its moment executes nothing when it is continued. A moment before, faulthandler writes the stacks
of all threads to a file in memory, which cannot block, so that the node can say where it was stuck.
"""

import contextlib
import faulthandler
import os
import signal
import time

_NANOSECONDS = 1_000_000_000
_DUMP_BEFORE = 0.3
"""Seconds between the dump of the stacks and the end."""
_SHORTEST = 1e-6
"""setitimer takes 0 for "never"."""
_UNARMED_SECONDS = 60.0
"""What a process has from its fork to its first permit: it never runs without a timer."""


class NotPermitted(Exception):
    """There is no permit, or it is over."""


def limit_the_wait() -> None:
    """Have the kernel end this process unless a watchdog is armed in time. For the first moment after the fork."""
    signal.setitimer(signal.ITIMER_REAL, _UNARMED_SECONDS)


class Watchdog:
    """Armed by the first permit; not by itself: a process without one must not begin."""

    def __init__(self, dump_to: int) -> None:
        """`dump_to`: a file descriptor whose writes never block."""
        self._dump_to = dump_to
        self._deadline_ns = 0

    def arm(self, deadline_ns: int) -> None:
        """Take the first permit. Raises NotPermitted if there is none or it is over."""
        if deadline_ns <= time.monotonic_ns():
            raise NotPermitted("no permit, or one that was over before it arrived")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self.permit(deadline_ns)

    def permit(self, deadline_ns: int) -> None:
        """Go on until this moment; one that is not later than the last is ignored."""
        if deadline_ns <= self._deadline_ns:
            return
        self._deadline_ns = deadline_ns
        remaining = (deadline_ns - time.monotonic_ns()) / _NANOSECONDS
        signal.setitimer(signal.ITIMER_REAL, max(remaining, _SHORTEST))
        # Between the reading of the clock and the arming this process may have been stopped for any length of time:
        # the timer is relative, and would grant it all of that again.
        if time.monotonic_ns() >= deadline_ns:
            os.kill(os.getpid(), signal.SIGKILL)
        self._plan_dump(remaining - _DUMP_BEFORE)

    def _plan_dump(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with contextlib.suppress(RuntimeError):  # no thread to be had for it; the timer stands
            faulthandler.dump_traceback_later(seconds, file=self._dump_to)
