"""Whether to believe that this process is connected, and how long to wait while it is not. No threads, no waiting.

The library's events come first. But an event can be missing: a reconnection after a 515 tells of neither its beginning
nor its failure, and what hangs tells nothing at all. So the library is asked as well, each second:

- it does not say that it is connected, for longer than DOUBT: it counts as disconnected, whatever the last event was;
- it says so again for as long: it counts as connected, but only if nothing but such an answer had spoken against it.
  After an event that did, its answer is no evidence: what it remembers of having logged in outlives the connection;
- not connected for LIMIT, and nothing came in: this process leaves. One that shows a code waits for a person, until
  that code is over.
"""

import enum
import threading
import time
from collections.abc import Callable

DISAGREEMENT_GRACE_S = 4.0
"""Seconds. A moment's contradiction is no news: the events and the answers come by different ways."""
CONNECT_TIMEOUT_S = 60.0
"""Seconds without a connection after which this process leaves; as long a login may take that is to succeed."""
_FRESH = 3.0
"""Seconds for which an answer counts."""
_PAUSE = 3.0
"""Seconds between two verdicts beyond which this process was not running: that time says nothing about the library."""


class Verdict(enum.Enum):
    """What follows."""

    #: Nothing new.
    NOTHING = "NOTHING"
    #: It counts as disconnected from now on.
    LOST = "LOST"
    #: It counts as connected again.
    BACK = "BACK"
    #: This has to end. Said once.
    LEAVE = "LEAVE"


class ConnectionMonitor:
    """What was heard, what was answered, and what follows. Safe to use from any thread; no call waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._is_up = False
        self._is_own_doubt = False
        self._yes_since: float | None = None
        self._last_yes = float("-inf")
        self._down_since: float | None = None
        self._looked_at = clock()

    def connecting(self) -> None:
        """The first connect begins: it counts from now on."""
        with self._lock:
            self._down_since = self._clock()

    def connected(self) -> None:
        """The library says that it is connected, or answered again."""
        with self._lock:
            self._rise()
            self._last_yes = self._clock()

    def disconnected(self) -> None:
        """The library says that it is not, or not answered."""
        with self._lock:
            self._fall()
            self._is_own_doubt = False

    def showing_code(self, lifetime: float) -> None:
        """A code is on show for so many seconds."""
        with self._lock:
            self._down_since = self._clock() + lifetime

    def scanned(self) -> None:
        """Nobody is waited for any more."""
        with self._lock:
            self._down_since = self._clock()

    def heard(self) -> None:
        """Something came in from WhatsApp: a long queue can come before the word that the login is complete."""
        with self._lock:
            if self._down_since is not None:
                self._down_since = max(self._down_since, self._clock())

    def answered(self, *, is_up: bool) -> None:
        """The library was asked whether it is connected and logged in."""
        with self._lock:
            if not is_up:
                self._yes_since = None
                return
            self._last_yes = self._clock()
            self._yes_since = self._last_yes if self._yes_since is None else self._yes_since

    @property
    def is_up(self) -> bool:
        """Whether it counts as connected, and the library has said so not long ago."""
        return self._is_up and self._clock() - self._last_yes <= _FRESH

    def verdict(self) -> Verdict:
        """What follows now. To be asked about once a second."""
        with self._lock:
            now = self._clock()
            self._forgive(now - self._looked_at)
            self._looked_at = now
            if self._is_up:
                return self._lose(now)
            if self._is_own_doubt and self._is_sure(now):
                self._rise()
                return Verdict.BACK
            if self._down_since is not None and now - self._down_since >= CONNECT_TIMEOUT_S:
                self._down_since = None
                return Verdict.LEAVE
            return Verdict.NOTHING

    def _lose(self, now: float) -> Verdict:
        if now - self._last_yes <= DISAGREEMENT_GRACE_S:
            return Verdict.NOTHING
        self._fall()
        self._is_own_doubt = True
        return Verdict.LOST

    def _is_sure(self, now: float) -> bool:
        return (
            self._yes_since is not None
            and now - self._last_yes <= _FRESH
            and now - self._yes_since >= DISAGREEMENT_GRACE_S
        )

    def _rise(self) -> None:
        self._is_up, self._is_own_doubt, self._down_since = True, False, None

    def _fall(self) -> None:
        if self._is_up:
            self._is_up, self._yes_since, self._down_since = False, None, self._clock()

    def _forgive(self, pause: float) -> None:
        if pause <= _PAUSE:
            return
        self._last_yes += pause
        if self._yes_since is not None:
            self._yes_since += pause
        if self._down_since is not None:
            self._down_since += pause
