"""Ends this process once, with a reason reported to its node, and within a bounded time."""

import contextlib
import os
import threading
import time
from collections.abc import Callable

from service.domain.disconnect_policy import Cause
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.redaction import redact
from zap.worker.v1 import frames_pb2

EXIT_REPORTED = 3
"""Exit status of a process that reported to its node a cause other than a requested stop."""
NODE_GONE = 4
"""Exit status of a process whose node went away."""

_WEAK_CAUSE_DELAY_S = 0.3
_EXIT_TIMEOUT_S = 10.0


class ProcessExit:
    """Ends the process with the first cause that it is given.

    It uses `os._exit`, because an ordinary exit would wait for threads inside Go, which never return.
    """

    def __init__(self, reports: FrameWriter, leave: Callable[[int], None] = os._exit) -> None:
        self._reports = reports
        self._leave = leave
        self._once = threading.Lock()

    def end(self, cause: Cause, detail: str = "") -> None:
        """End the process now; return only if another cause came first."""
        self.end_with(frames_pb2.Ended(cause=cause.name, detail=detail))

    def end_with(self, ended: frames_pb2.Ended, linger: float = 0.0) -> None:
        """Report this end and exit, after `linger` seconds in which the library can finish its work."""
        if not self._once.acquire(blocking=False):
            return
        self._leave_within(_EXIT_TIMEOUT_S)
        time.sleep(linger)
        ended.detail = redact(ended.detail)
        status = 0 if ended.cause == Cause.STOPPED.name else EXIT_REPORTED
        self._reports.send_last(frames_pb2.Frame(ended=ended), lambda: self._leave(status))

    def end_soon(
        self,
        ended: frames_pb2.Ended,
        within: float = _WEAK_CAUSE_DELAY_S,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Report this end after a delay, unless a better cause comes first: the library's first report can be vague.

        `unless` is asked after the delay; the process goes on if it returns true.
        """

        def end() -> None:
            if not unless():
                self.end_with(ended)

        timer = threading.Timer(within, end)
        timer.daemon = True
        timer.start()

    def _leave_within(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._leave, (EXIT_REPORTED,))
        timer.daemon = True
        # If no thread can be started, the watchdog ends the process instead.
        with contextlib.suppress(RuntimeError):
            timer.start()
