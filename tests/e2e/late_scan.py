"""A preload that aims at the simulator, and has the library log in before it tells itself of the scan.

``ZAP_WORKER_PRELOAD=tests.e2e.late_scan:aim``. whatsmeow writes a line to its log between the two; taking it is slow.
"""

import ctypes
import time
from typing import Any

from simulator import preload

PRELOAD = "tests.e2e.late_scan:aim"
LATE_S = 0.7


def aim() -> None:
    """Aim at the simulator, and be slow to take the line."""
    from service.worker.session import client  # noqa: PLC0415 - not in the test's own process: it imports neonize

    preload.aim()
    take = client.Client._forward_log_line

    def slowly(self: client.Client, binary: int, size: int) -> Any:
        if b"Successfully paired" in ctypes.string_at(binary, size):
            time.sleep(LATE_S)
        return take(self, binary, size)

    client.Client._forward_log_line = slowly  # type: ignore[method-assign]
