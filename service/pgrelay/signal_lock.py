"""Keeps one use of the Signal sessions from overlapping another.

whatsmeow loads a Signal session, advances its ratchet and stores it, to encrypt as well as to decrypt, and has no lock
for that. Where a send and an inbound message of one conversation overlap, the later store overwrites the ratchet of the
earlier one, and what follows cannot be read. All of these statements pass the relay, so the relay has the lock.

A decryption loads and stores in one transaction. A send, or an answer to a retry receipt, loads outside of any
transaction, and stores later, perhaps on another connection. One lock is enough for all conversations: it is held for
two or three round trips to Postgres, and for one to WhatsApp if a send must fetch prekeys.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

Connection = TypeVar("Connection")

MISSING_STORE_LOOKS = 4
"""Looks of the relay after which a session that was loaded outside of a transaction is not expected to be stored."""


class SignalLock(Generic[Connection]):
    """A lock whose owner is a connection of the library's. Used by the relay's thread alone."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        """`say` takes a level and a sentence for the log."""
        self._say = say
        self._owner: Connection | None = None
        self._is_transaction = False
        self._waiting: dict[Connection, None] = {}
        """In the order in which they came."""
        self._looks = 0

    def acquire(self, connection: Connection, *, in_transaction: bool) -> bool:
        """Let a connection load a session if none is in use; otherwise note that it waits, and return False."""
        if in_transaction and self._is_transaction and self._owner is connection:
            return True
        if self._owner is not None or next(iter(self._waiting), connection) is not connection:
            self._waiting.setdefault(connection)
            return False
        self._waiting.pop(connection, None)
        self._owner, self._is_transaction, self._looks = connection, in_transaction, 0
        return True

    def release(self, connection: Connection, *, has_stored: bool) -> None:
        """Take note that a connection has no open transaction any more; `has_stored`: it has stored a session."""
        if self._owner is connection if self._is_transaction else has_stored:
            self._owner = None

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed."""
        self._waiting.pop(connection, None)
        # A send may store by another connection what it has loaded by this one.
        if self._owner is connection and self._is_transaction:
            self._owner = None

    @property
    def has_next(self) -> bool:
        """Return whether a connection that waits may load now."""
        return self._owner is None and bool(self._waiting)

    def look(self) -> None:
        """Count one look, and let others go on if what was loaded is not stored."""
        if self._owner is None or self._is_transaction or not self._waiting:
            return
        self._looks += 1
        if self._looks >= MISSING_STORE_LOOKS:
            self._owner = None
            self._say("warning", "a Signal session was loaded and is not stored; other messages go on")
