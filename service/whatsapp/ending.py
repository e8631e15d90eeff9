"""The end of this process: once, with a reason, and for certain."""

import os
import threading
import time
from collections.abc import Callable

from service.domain.disconnects import Cause
from service.whatsapp.redaction import redact
from service.whatsapp.reports import Reports
from zap.worker.v1 import frames_pb2

SAID_WHY = 3
"""Exit status of a process that told its node a cause other than having been asked."""
NODE_GONE = 4
"""Exit status of a process whose node went away."""

_WEAK_CAUSE_WAITS = 0.3
_LIMIT = 10.0


class Ending:
    """Ends the process by the first cause that it is given.

    Always by `os._exit`: threads that are inside Go never come back, and an ordinary exit would wait for them.
    """

    def __init__(self, reports: Reports, leave: Callable[[int], None] = os._exit) -> None:
        self._reports = reports
        self._leave = leave
        self._once = threading.Lock()

    def end(self, cause: Cause, detail: str = "") -> None:
        """End now. Returns only if another cause was first."""
        self.end_with(frames_pb2.Ended(cause=cause.name, detail=detail))

    def end_with(self, ended: frames_pb2.Ended, linger: float = 0.0) -> None:
        """End with these words; `linger` seconds later, for what the library still has to do."""
        if not self._once.acquire(blocking=False):
            return
        self._leave_within(_LIMIT)
        time.sleep(linger)
        ended.detail = redact(ended.detail)
        status = 0 if ended.cause == Cause.STOPPED.name else SAID_WHY
        self._reports.send_last(frames_pb2.Frame(ended=ended), lambda: self._leave(status))

    def end_soon(self, cause: Cause, detail: str = "") -> None:
        """End by this cause, unless a better one comes within a moment: some ends are told twice, vaguely first."""
        timer = threading.Timer(_WEAK_CAUSE_WAITS, self.end, (cause, detail))
        timer.daemon = True
        timer.start()

    def leave_silently(self, status: int) -> None:
        """End without a word: there is nobody to hear it."""
        if self._once.acquire(blocking=False):
            self._leave(status)

    def _leave_within(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._leave, (SAID_WHY,))
        timer.daemon = True
        timer.start()
