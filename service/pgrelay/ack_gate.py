"""Delays the acknowledgement of a message until the event log has the message.

whatsmeow acknowledges a message after it has cleared the message's plaintext from its decryption buffer. It clears the
buffer by a statement that passes the database relay, and the relay asks this gate whether the statement may pass
(docs/supervision.md, "Acknowledge what is written").

For each ciphertext the library, on one goroutine,

1. looks the ciphertext up in the buffer: `expect_event`;
2. decrypts it and passes one message event to a callback, which returns when its frames are committed: `handling`;
3. clears the buffer: `may_clear`.

A ciphertext that was processed before has only step 1. A protocol message that the library cannot apply has no step 2;
its clearing passes after a bounded wait. Messages of bots, posts of newsletters and messages that the phone sends again
have only step 2.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MISSING_EVENT_CHECKS = 10
"""Checks by the relay, without any event in between, after which no event is expected."""
CHECK_INTERVAL_S = 0.5
"""Least seconds between two checks. Checks are counted, not seconds, because a suspended process makes none."""
SLOW_EVENT_S = 4.0
"""Seconds after which an event was slow: perhaps the node's connections were dead, and those of the relay are too."""


class AckGate:
    """Decides whether a clearing may pass. The relay asks it; the library's callbacks update it."""

    def __init__(self, log: Callable[[str, str], None]) -> None:
        """`log` takes a level and a sentence."""
        self._log_line = log
        self._condition = threading.Condition()
        self._on_open: Callable[[], None] = lambda: None
        self._expects_event = self._is_handling = self._is_awaited = self._is_shut = False
        self._is_logged = False
        self._deferred_commits = self._open_commits = 0
        self._checks = 0
        self._was_slow = False

    def notify(self, on_open: Callable[[], None]) -> None:
        """Set the callback, called by any thread, for when a waiting clearing may pass or a COMMIT is wanted."""
        self._on_open = on_open

    def defer_commit(self) -> None:
        """Record that the relay answered a decryption's COMMIT without forwarding it."""
        with self._condition:
            self._deferred_commits += 1
            self._open_commits += 1

    def forward_commit(self) -> None:
        """Record that the deferred COMMIT is forwarded."""
        with self._condition:
            self._deferred_commits -= 1

    def end_commit(self) -> None:
        """Record that the server has committed the decryption."""
        with self._condition:
            self._open_commits -= 1
            self._condition.notify_all()
            is_open = self._is_awaited and not self._has_to_wait
        if is_open:
            self._on_open()

    @property
    def wants_commit(self) -> bool:
        """Return whether a callback handles an event, whose decryption must then be committed."""
        return self._is_handling

    def wait_for_commit(self) -> None:
        """Wait until every decryption whose COMMIT was deferred is committed."""
        with self._condition:
            self._condition.wait_for(lambda: not self._open_commits)

    def expect_event(self) -> None:
        """Expect a message event, because the library has looked a ciphertext up."""
        with self._condition:
            self._expects_event, self._is_logged = True, False

    def log(self) -> None:
        """Record that the event being handled is durable in the event log."""
        with self._condition:
            self._is_logged = True

    @property
    def is_logged(self) -> bool:
        """Return whether the event of the current ciphertext is in the event log; False if it has no event."""
        return self._is_logged

    @contextmanager
    def handling(self, *, is_message: bool) -> Iterator[None]:
        """Keep clearings waiting while one event of the library is handled, until its frames are committed."""
        began = time.monotonic()
        with self._condition:
            self._is_handling = True
            self._checks = 0
            if is_message:
                self._expects_event = False
            is_commit_wanted = self._deferred_commits > 0
        if is_commit_wanted:
            self._on_open()
        try:
            yield
        finally:
            with self._condition:
                self._is_handling = False
                self._checks = 0
                self._was_slow |= time.monotonic() - began >= SLOW_EVENT_S
                is_open = self._is_awaited and not self._has_to_wait
            if is_open:
                self._on_open()

    def take_slow(self) -> bool:
        """Return whether an event was slow since the last call."""
        with self._condition:
            was_slow, self._was_slow = self._was_slow, False
        return was_slow

    def shut(self) -> None:
        """Let no clearing pass any more, because events may reach no callback from now on.

        WhatsApp sends a message that is committed and not cleared again, and the event log recognises it.
        """
        with self._condition:
            self._is_shut = True

    @property
    def _has_to_wait(self) -> bool:
        return self._is_handling or self._expects_event or self._is_shut or self._open_commits > 0

    def may_clear(self) -> bool:
        """Return whether a clearing may pass now. If not, call `on_open` once it may."""
        with self._condition:
            self._is_awaited = self._has_to_wait
            if not self._is_awaited:
                self._checks = 0
            return not self._is_awaited

    def check(self) -> None:
        """Count one check of a waiting clearing, and stop expecting its event after `MISSING_EVENT_CHECKS` of them."""
        with self._condition:
            if self._is_handling or self._is_shut or not self._expects_event:
                return
            self._checks += 1
            if self._checks < MISSING_EVENT_CHECKS:
                return
            self._expects_event = False
        self._log_line("warning", "a message was decrypted and brought no event; it is acknowledged")
