"""Logs an outage of Postgres: its first failure at once, further ones rarely, and its end."""

import threading
import time
from collections.abc import Callable

_REPEAT_S = 30.0


class OutageLog:
    """Counts the failed dials of all threads until one succeeds."""

    def __init__(self, log: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`log` takes a level and a sentence."""
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._began = self._logged_at = 0.0
        self.last = ""
        """The last failure and its address; empty while there is none."""

    def failed(self, where: str, error: Exception) -> None:
        """Count a failed dial, and log the first one and one in each interval."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            self.last = f"{where}: {str(error) or type(error).__name__}"
            if self._failures > 1 and now - self._logged_at < _REPEAT_S:
                return
            if self._failures == 1:
                self._began = now
            self._logged_at = now
            tries = f", {self._failures} times in {now - self._began:.0f} s" if self._failures > 1 else ""
            self._log("warning", f"Postgres cannot be reached{tries}; the library waits. {self.last}")

    def over(self) -> None:
        """Log the end of an outage, and reset the count."""
        with self._lock:
            if self._failures:
                self._log("info", f"Postgres is reached again after {self._clock() - self._began:.1f} s")
            self._failures = 0
            self.last = ""
