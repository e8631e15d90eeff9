"""Sends a heartbeat to the node each second, polls the library's connection, and acts on the monitor's verdicts.

Two threads do this, because the library's answer can take as long as a connect in flight (whatsmeow holds the lock of
its socket while it dials). One polls; the other sends heartbeats and acts (`connection_monitor.py`).
"""

import threading
import time
from collections.abc import Callable

from service.worker.session.connection_monitor import ConnectionMonitor, Verdict
from zap.worker.v1 import frames_pb2

_INTERVAL_S = 1.0


class Heartbeat:
    """Sends progress frames and acts on verdicts, from `start` until the end of the process."""

    def __init__(
        self,
        offer: Callable[[frames_pb2.Frame], bool],
        is_up: Callable[[], bool],
        on_up: Callable[[], None],
        monitor: ConnectionMonitor,
        act: Callable[[Verdict], None],
    ) -> None:
        """`on_up` is called by the polling thread after each answer "connected"; `act` by the other thread."""
        self._offer = offer
        self._is_up = is_up
        self._on_up = on_up
        self._monitor = monitor
        self._act = act
        self._is_polling = False

    def start(self) -> None:
        """Start to send heartbeats."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def ask(self) -> None:
        """Start to poll the library. Not before the first login: until then Go's client may be nil."""
        if not self._is_polling:
            self._is_polling = True
            threading.Thread(target=self._poll, name="polling", daemon=True).start()

    def _beat(self) -> None:
        while True:
            self._offer(frames_pb2.Frame(progress=frames_pb2.Progress()))
            if (verdict := self._monitor.verdict()) is not Verdict.NOTHING:
                self._act(verdict)
            time.sleep(_INTERVAL_S)

    def _poll(self) -> None:
        while True:
            time.sleep(_INTERVAL_S)
            is_up = self._is_up()
            self._monitor.answered(is_up=is_up)
            if is_up:
                self._on_up()
