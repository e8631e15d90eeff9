"""What is said of a server that cannot be reached: at first at once, then rarely, and when it is over."""

import threading
import time
from collections.abc import Callable

_AGAIN_SECONDS = 30.0


class OutageLog:
    """Counts failures, of any thread, until a success."""

    def __init__(self, say: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`say` takes a level and a sentence."""
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._began = self._said = 0.0
        self.last = ""
        """The last failure, in words; empty while there is none."""

    def failed(self, where: str, error: Exception) -> None:
        """A try failed, and there will be another one."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            self.last = f"{where}: {str(error) or type(error).__name__}"
            if self._failures > 1 and now - self._said < _AGAIN_SECONDS:
                return
            if self._failures == 1:
                self._began = now
            self._said = now
            tries = f", {self._failures} times in {now - self._began:.0f} s" if self._failures > 1 else ""
            self._say("warning", f"Postgres cannot be reached{tries}; the library waits. {self.last}")

    def over(self) -> None:
        """A try succeeded."""
        with self._lock:
            if self._failures:
                self._say("info", f"Postgres is reached again after {self._clock() - self._began:.1f} s")
            self._failures = 0
            self.last = ""
