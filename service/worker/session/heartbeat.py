"""Tells the node each second that this process is not stuck, and watches over its connection.

Two threads, because the library's answer can take as long as a connect in flight (whatsmeow holds the lock of its
socket while it dials): one asks, the other one tells what follows from the answers there have been (`patience.py`).
"""

import threading
import time
from collections.abc import Callable

from service.worker.session.connection_monitor import ConnectionMonitor, Verdict
from zap.worker.v1 import frames_pb2

_EVERY = 1.0


class Heartbeat:
    """Progress frames and verdicts, from `start` until the end of the process."""

    def __init__(
        self,
        offer: Callable[[frames_pb2.Frame], bool],
        is_up: Callable[[], bool],
        look: Callable[[], None],
        patience: ConnectionMonitor,
        act: Callable[[Verdict], None],
    ) -> None:
        """`look` is called by the thread that asks, each time it hears that it is up; `act` by the other one."""
        self._offer = offer
        self._is_up = is_up
        self._look = look
        self._patience = patience
        self._act = act
        self._is_asking = False

    def start(self) -> None:
        """Tell from now on that this process goes on."""
        threading.Thread(target=self._tell, name="pulse", daemon=True).start()

    def ask(self) -> None:
        """Ask the library from now on. Not before the first login: there may be no client yet, only a nil in Go."""
        if not self._is_asking:
            self._is_asking = True
            threading.Thread(target=self._keep_asking, name="asking", daemon=True).start()

    def _tell(self) -> None:
        while True:
            self._offer(frames_pb2.Frame(progress=frames_pb2.Progress()))
            if (verdict := self._patience.verdict()) is not Verdict.NOTHING:
                self._act(verdict)
            time.sleep(_EVERY)

    def _keep_asking(self) -> None:
        while True:
            time.sleep(_EVERY)
            is_up = self._is_up()
            self._patience.answered(is_up=is_up)
            if is_up:
                self._look()
