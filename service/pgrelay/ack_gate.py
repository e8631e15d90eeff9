"""Holds the acknowledgement of a message back until the event log has the message.

whatsmeow acknowledges a message after it has cleared the message's plaintext from its decryption buffer, and it clears
the buffer by a statement that passes the database relay. The relay asks this gate before it lets the statement pass
(docs/supervision.md, "Acknowledge what is written").

For each ciphertext the library, on one goroutine,

1. looks the ciphertext up in the buffer: `expect_event`;
2. decrypts it and hands over one message event, which ends when its frames are committed: `handling`;
3. clears the buffer: `may_clear`.

A ciphertext that was processed before has step 1 alone. A protocol message that the library cannot apply has no step 2:
the clearing then passes after a bounded wait. Messages of bots, posts of newsletters and messages that the phone sends
again have step 2 alone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MISSING_EVENT_LOOKS = 10
"""Looks of the relay, at least `LOOK_S` apart and without any event in between, after which no event is expected."""
LOOK_S = 0.5
"""Looks are counted instead of seconds: a process that stood still has not looked."""


class AckGate:
    """Knows whether the message in hand is committed. The relay asks it, the library's callbacks feed it."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        """`say` takes a level and a sentence for the log."""
        self._say = say
        self._lock = threading.Condition()
        self._on_open: Callable[[], None] = lambda: None
        self._expects_event = self._is_handling = self._is_awaited = self._is_shut = False
        self._is_logged = False
        self._deferred_commits = self._open_commits = 0
        self._looks = 0

    def notify(self, on_open: Callable[[], None]) -> None:
        """Have `on_open` called, by any thread, when a clearing that had to wait may pass, or a COMMIT is wanted."""
        self._on_open = on_open

    def defer_commit(self) -> None:
        """Take note that the library takes a decryption for committed that the server has not heard of."""
        with self._lock:
            self._deferred_commits += 1
            self._open_commits += 1

    def forward_commit(self) -> None:
        """Take note that the server is asked to commit it."""
        with self._lock:
            self._deferred_commits -= 1

    def end_commit(self) -> None:
        """Take note that the server has committed it."""
        with self._lock:
            self._open_commits -= 1
            self._lock.notify_all()
            is_open = self._is_awaited and not self._has_to_wait
        if is_open:
            self._on_open()

    @property
    def wants_commit(self) -> bool:
        """Whether an event is in hand: it is not handed to the node before its decryption is committed."""
        return self._is_handling

    def wait_for_commit(self) -> None:
        """Wait until the decryption of the message in hand is committed."""
        with self._lock:
            self._lock.wait_for(lambda: not self._open_commits)

    def expect_event(self) -> None:
        """Expect a message event: the library has looked a ciphertext up."""
        with self._lock:
            self._expects_event, self._is_logged = True, False

    def log(self) -> None:
        """Take note that the event in hand is in the event log, on the disk."""
        with self._lock:
            self._is_logged = True

    @property
    def is_logged(self) -> bool:
        """Whether the event of the ciphertext in hand is in the event log; False if it had none to be logged."""
        return self._is_logged

    @contextmanager
    def handling(self, *, is_message: bool) -> Iterator[None]:
        """Surround the handling of one event of the library, until its frames are committed."""
        with self._lock:
            self._is_handling = True
            self._looks = 0
            if is_message:
                self._expects_event = False
            is_commit_wanted = self._deferred_commits > 0
        if is_commit_wanted:
            self._on_open()
        try:
            yield
        finally:
            with self._lock:
                self._is_handling = False
                self._looks = 0
                is_open = self._is_awaited and not self._has_to_wait
            if is_open:
                self._on_open()

    def shut(self) -> None:
        """Let no clearing pass any more: from now on an event may be taken by no callback.

        A message that is committed and not cleared comes again, and the log recognises it.
        """
        with self._lock:
            self._is_shut = True

    @property
    def _has_to_wait(self) -> bool:
        return self._is_handling or self._expects_event or self._is_shut or self._open_commits > 0

    def may_clear(self) -> bool:
        """Return whether a clearing may pass now; if not, `on_open` is called when it may."""
        with self._lock:
            self._is_awaited = self._has_to_wait
            if not self._is_awaited:
                self._looks = 0
            return not self._is_awaited

    def look(self) -> None:
        """Count one look at a clearing that waits, and let it pass if its event does not come."""
        with self._lock:
            if self._is_handling or self._is_shut or not self._expects_event:
                return
            self._looks += 1
            if self._looks < MISSING_EVENT_LOOKS:
                return
            self._expects_event = False
        self._say("warning", "a message was decrypted and brought no event; it is acknowledged")
