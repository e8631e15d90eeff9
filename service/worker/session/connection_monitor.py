"""Decides whether a session counts as connected, and when it must end because it is not.

The library's events decide first. An event can be missing: a reconnection after a 515 raises none when it begins or
fails, and a library that hangs raises none at all. So the library is polled each second too:

- If it has not confirmed the connection for DISAGREEMENT_GRACE_S, the session counts as disconnected, whatever the last
  event was.
- If it then confirms the connection for as long, the session counts as connected again, unless an event has reported
  the disconnection: the library's "logged in" outlives the connection, so an answer after such an event proves nothing.
- If it is not connected for CONNECT_TIMEOUT_S and nothing came in, the session ends. A QR code delays its start.
"""

import enum
import threading
import time
from collections.abc import Callable

DISAGREEMENT_GRACE_S = 4.0
"""Events and polling can disagree briefly; a disagreement shorter than this is ignored."""
CONNECT_TIMEOUT_S = 60.0
"""How long a session may be without a connection before it ends; also the longest login that can succeed."""
_ANSWER_TTL_S = 3.0
"""How long an answer of the library is valid."""
_POLL_INTERVAL_S = 1.0
_SUSPENDED_AFTER_S = 3.0
"""If two verdicts are further apart, the process was suspended, and that time does not count."""


class Verdict(enum.Enum):
    """What has changed since the last verdict."""

    #: Nothing has changed.
    NOTHING = "NOTHING"
    #: The session counts as disconnected from now on.
    LOST = "LOST"
    #: The session counts as connected again.
    BACK = "BACK"
    #: The session has to end. Returned once.
    LEAVE = "LEAVE"


class ConnectionMonitor:
    """Combines the library's events and answers into a verdict. Safe to use from any thread; no call waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._is_up = False
        self._is_down_by_polling = False
        self._yes_since: float | None = None
        self._last_yes = float("-inf")
        self._down_since: float | None = None
        self._last_verdict = clock()

    def connecting(self) -> None:
        """Start the timeout of the first connect."""
        with self._lock:
            self._down_since = self._clock()

    def connected(self) -> None:
        """Record an event by which the library is connected, or reachable again."""
        with self._lock:
            self._mark_up()
            self._last_yes = self._clock()

    def disconnected(self) -> None:
        """Record an event by which the connection has ended, or WhatsApp no longer answers."""
        with self._lock:
            self._mark_down()
            self._is_down_by_polling = False

    def showing_code(self, lifetime: float) -> None:
        """Start the timeout when the QR code that is shown now expires, `lifetime` seconds from now."""
        with self._lock:
            self._down_since = self._clock() + lifetime

    def scanned(self) -> None:
        """Restart the timeout now, because the QR code was scanned."""
        with self._lock:
            self._down_since = self._clock()

    def heard(self) -> None:
        """Restart the timeout, because something came in: many messages can arrive before the "connected" event."""
        with self._lock:
            if self._down_since is not None:
                self._down_since = max(self._down_since, self._clock())

    def answered(self, *, is_up: bool) -> None:
        """Record the library's answer to whether it is connected and logged in."""
        with self._lock:
            if not is_up:
                self._yes_since = None
                return
            self._last_yes = self._clock()
            self._yes_since = self._last_yes if self._yes_since is None else self._yes_since

    @property
    def is_up(self) -> bool:
        """Return whether the session counts as connected and the library has confirmed it recently."""
        return self._is_up and self._clock() - self._last_yes <= _ANSWER_TTL_S

    def verdict(self) -> Verdict:
        """Return what has changed since the last call. Called about once a second."""
        with self._lock:
            now = self._clock()
            self._discount_suspension(now - self._last_verdict)
            self._last_verdict = now
            if self._is_up:
                return self._check_up(now)
            if self._is_down_by_polling and self._is_confirmed(now):
                self._mark_up()
                return Verdict.BACK
            if self._down_since is not None and now - self._down_since >= CONNECT_TIMEOUT_S:
                self._down_since = None
                return Verdict.LEAVE
            return Verdict.NOTHING

    def _check_up(self, now: float) -> Verdict:
        if now - self._last_yes <= DISAGREEMENT_GRACE_S:
            return Verdict.NOTHING
        self._mark_down()
        self._is_down_by_polling = True
        return Verdict.LOST

    def _is_confirmed(self, now: float) -> bool:
        return (
            self._yes_since is not None
            and now - self._last_yes <= _ANSWER_TTL_S
            and now - self._yes_since >= DISAGREEMENT_GRACE_S
        )

    def _mark_up(self) -> None:
        self._is_up, self._is_down_by_polling, self._down_since = True, False, None

    def _mark_down(self) -> None:
        if self._is_up:
            self._is_up, self._yes_since, self._down_since = False, None, self._clock()

    def _discount_suspension(self, seconds: float) -> None:
        if seconds <= _SUSPENDED_AFTER_S:
            return
        self._last_yes += seconds
        if self._yes_since is not None:
            self._yes_since += seconds
        if self._down_since is not None:
            self._down_since += seconds


class ConnectionPolling:
    """Asks the library each second whether it is connected, and reports its answers to the monitor.

    It has a thread of its own, because the answer can take as long as a connect in flight (whatsmeow holds the lock of
    its socket while it dials), and the thread of the heartbeat must not wait for it.
    """

    def __init__(self, is_up: Callable[[], bool], on_up: Callable[[], None], monitor: ConnectionMonitor) -> None:
        """`on_up` is called after each answer "connected"."""
        self._is_up = is_up
        self._on_up = on_up
        self._monitor = monitor
        self._is_polling = False

    def start(self) -> None:
        """Start to poll the library. Not before the first login: until then Go's client may be nil."""
        if not self._is_polling:
            self._is_polling = True
            threading.Thread(target=self._poll, name="polling", daemon=True).start()

    def _poll(self) -> None:
        while True:
            time.sleep(_POLL_INTERVAL_S)
            is_up = self._is_up()
            self._monitor.answered(is_up=is_up)
            if is_up:
                self._on_up()
