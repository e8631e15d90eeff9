"""Tells the node each second that this process is not stuck, and whether its connection is up.

Two threads, because the library's answer can take as long as a connect in flight (whatsmeow holds the lock of its
socket while it dials): one asks, the other one tells how the last answer was, unless that is too old to count.
"""

import threading
import time
from collections.abc import Callable

from zap.worker.v1 import frames_pb2

_EVERY = 1.0
_ANSWER_COUNTS_FOR = 3.0


class Pulse:
    """Progress frames, from `start` until the end of the process."""

    def __init__(
        self,
        offer: Callable[[frames_pb2.Frame], bool],
        is_up: Callable[[], bool],
        look: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look` is called by the asking thread, after it was told that the connection is up."""
        self._offer = offer
        self._is_up = is_up
        self._look = look
        self._clock = clock
        self._up_at = float("-inf")
        self._is_trusted = False
        self._is_asking = False

    def start(self) -> None:
        """Tell from now on that this process goes on."""
        threading.Thread(target=self._tell, name="pulse", daemon=True).start()

    def trust(self) -> None:
        """The client has logged in, or is answered again: believe it, and ask it from now on.

        Not before the first login: there may be no client to ask yet, only a nil in Go.
        """
        self._is_trusted = True
        if not self._is_asking:
            self._is_asking = True
            threading.Thread(target=self._keep_asking, name="asking", daemon=True).start()
        self._up_at = self._clock()

    def doubt(self) -> None:
        """Something was heard that says it is not up; the library's own answer may go on for minutes."""
        self._is_trusted = False

    @property
    def is_up(self) -> bool:
        """Whether the library said so, not long ago."""
        return self._is_trusted and self._clock() - self._up_at <= _ANSWER_COUNTS_FOR

    def _tell(self) -> None:
        while True:
            self._offer(frames_pb2.Frame(progress=frames_pb2.Progress(connected=self.is_up)))
            time.sleep(_EVERY)

    def _keep_asking(self) -> None:
        while True:
            time.sleep(_EVERY)
            asked = self._clock()
            if self._is_up():
                self._up_at = asked
                self._look()
