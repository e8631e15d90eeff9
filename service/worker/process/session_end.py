"""Ends one session once, with the first cause that is given. The process gives it to the session."""

import threading
import time
from collections.abc import Callable

from service.domain.disconnect_policy import Cause
from zap.worker.v1 import frames_pb2

_WEAK_CAUSE_DELAY_S = 0.3


class SessionEnd:
    """Ends a session; the process exits with its last one."""

    def __init__(self, report: Callable[[frames_pb2.Ended], None]) -> None:
        """`report` is called once, and returns only if other sessions run on."""
        self._report = report
        self._once = threading.Lock()

    def end(self, cause: Cause, detail: str = "") -> None:
        """End the session now; return only if another cause came first, or if other sessions run on."""
        self.end_with(frames_pb2.Ended(cause=cause.name, detail=detail))

    def end_with(self, ended: frames_pb2.Ended, linger: float = 0.0) -> None:
        """End the session with this report, after `linger` seconds in which the library can finish its work."""
        if self._once.acquire(blocking=False):
            time.sleep(linger)
            self._report(ended)

    def end_soon(
        self,
        ended: frames_pb2.Ended,
        within: float = _WEAK_CAUSE_DELAY_S,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Report this end after a delay, unless a better cause comes first: the library's first report can be vague.

        `unless` is asked after the delay; the session goes on if it returns true.
        """

        def end() -> None:
            if not unless():
                self.end_with(ended)

        timer = threading.Timer(within, end)
        timer.daemon = True
        timer.start()
