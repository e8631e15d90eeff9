"""Ends this process once, with a reason reported to its node, and within a bounded time."""

import contextlib
import os
import threading
from collections.abc import Callable

from service.domain.disconnect_policy import Cause
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.redaction import redact
from zap.worker.v1 import frames_pb2

EXIT_REPORTED = 3
"""Exit status of a process that reported to its node a cause other than a requested stop."""
NODE_GONE = 4
"""Exit status of a process whose node went away."""

_EXIT_TIMEOUT_S = 10.0


class ProcessExit:
    """Ends the process with the first cause that it is given.

    It uses `os._exit`, because an ordinary exit would wait for threads inside Go, which never return.
    """

    def __init__(self, writer: FrameWriter, leave: Callable[[int], None] = os._exit) -> None:
        self._writer = writer
        self.leave = leave
        """Exits with a status at once, without a report."""
        self._once = threading.Lock()

    def end(self, cause: Cause, detail: str = "") -> None:
        """End the process as a whole now; return only if it is ending already."""
        ended = frames_pb2.Ended(cause=cause.name, detail=redact(detail))
        self.end_with(frames_pb2.Frame(ended=ended))

    def end_with(self, last: frames_pb2.Frame) -> None:
        """End the process with this report; return only if it is ending already."""
        if not self._once.acquire(blocking=False):
            return
        timer = threading.Timer(_EXIT_TIMEOUT_S, self.leave, (EXIT_REPORTED,))
        timer.daemon = True
        # If no thread can be started, the watchdog ends the process instead.
        with contextlib.suppress(RuntimeError):
            timer.start()
        status = 0 if last.ended.cause == Cause.STOPPED.name else EXIT_REPORTED
        self._writer.send_last(last, lambda: self.leave(status))
