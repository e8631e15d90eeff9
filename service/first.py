"""`python -m service.first serve`: the first process of a container. It starts the node and outlasts it.

When the first process of a container ends, the kernel kills all others at once. If that were the node, a node that dies
(of a crash, or by the kernel for its memory) would take along what its session processes have heard and nobody has
written down. They leave WhatsApp, write it into the event log, and are gone before their lease can be anybody's
(docs/supervision.md). This process waits for them, collects whoever ends, and passes signals on; it does nothing else.

Standard library only: it costs about 10 MiB.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence

PASSED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
"""What the node is told as well."""
_AWAITED = PASSED_ON | {signal.SIGCHLD}
_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 1.0
"""Seconds between two looks at the clock."""
_DEFAULT_TTL = 10.0
_MARGIN = 1.0


def main(arguments: Sequence[str]) -> int:
    """Run `python -m service` with these arguments and wait for what it leaves; its exit code, 128 + n for signal n."""
    _be_given_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    command = [sys.executable, "-m", "service", *arguments]
    # Signals are blocked in this process alone.
    node = os.posix_spawn(sys.executable, command, os.environ, setsigmask=[])
    code = _code_of(_wait_for(node))
    _wait_for_the_rest(time.monotonic() + longest())
    return code


def longest() -> float:
    """Seconds for which a dead node's session processes can live: its lease's, by this environment."""
    try:
        return float(os.environ.get("ZAP_LEASE_TTL") or _DEFAULT_TTL) + _MARGIN
    except ValueError:
        # The node has refused it, and left nothing.
        return 0.0


def _be_given_orphans() -> None:
    """As the first process of a container is by itself; behind `docker run --init` it is the second."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for(node: int) -> int:
    """The node's wait status; whoever else ends meanwhile is collected, and signals are passed on."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number in PASSED_ON:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(node, number)
        for process, status in _ended():
            if process == node:
                return status


def _wait_for_the_rest(until: float) -> None:
    """Until nobody is left, or until then (time.monotonic()), or until somebody has no patience."""
    # Who ends between the look and the wait has sent a signal that is still there.
    while _is_anyone_left() and time.monotonic() < until:
        told = signal.sigtimedwait(_AWAITED, _LOOK)
        if told is not None and told.si_signo in PASSED_ON:
            return


def _ended() -> list[tuple[int, int]]:
    """Who has ended since: process ids and wait statuses."""
    ended = []
    with contextlib.suppress(ChildProcessError):  # nobody is left
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(one)
    return ended


def _is_anyone_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _code_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
