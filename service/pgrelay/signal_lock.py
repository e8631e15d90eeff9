"""Keeps two uses of the Signal sessions from overlapping.

To encrypt or decrypt, whatsmeow loads a Signal session, advances its ratchet and stores it, without a lock. If a send
and an inbound message of one conversation overlap, the later store overwrites the ratchet of the earlier one, and later
messages cannot be decrypted. The relay has the lock because all of these statements pass it.

A decryption loads and stores in one transaction. A send, or an answer to a retry receipt, loads outside of any
transaction and stores later, perhaps on another connection. One lock serves all conversations: it is held for two or
three round trips to Postgres, and for one to WhatsApp if a send must fetch prekeys.
"""

from collections.abc import Callable

MISSING_STORE_CHECKS = 4
"""Checks by the relay after which the store of a session loaded outside of a transaction is no longer expected."""


class SignalLock:
    """A lock owned by a connection of the library. Only the relay's thread uses it."""

    def __init__(self, log: Callable[[str, str], None]) -> None:
        """`log` takes a level and a sentence."""
        self._log = log
        self._owner: object | None = None
        self._is_transaction = False
        self._waiting: dict[object, None] = {}
        """An ordered set, first come first."""
        self._checks = 0

    def acquire(self, connection: object, *, in_transaction: bool) -> bool:
        """Return whether the connection may load a session now; if not, append it to those that wait."""
        if in_transaction and self._is_transaction and self._owner is connection:
            return True
        if self._owner is not None or next(iter(self._waiting), connection) is not connection:
            self._waiting.setdefault(connection)
            return False
        self._waiting.pop(connection, None)
        self._owner, self._is_transaction, self._checks = connection, in_transaction, 0
        return True

    def release(self, connection: object, *, has_stored: bool) -> None:
        """Release the lock at the end of a transaction; `has_stored`: the connection has stored a session."""
        if self._owner is connection if self._is_transaction else has_stored:
            self._owner = None

    def forget(self, connection: object) -> None:
        """Remove a closed connection."""
        self._waiting.pop(connection, None)
        # A send may store on another connection what it loaded on this one.
        if self._owner is connection and self._is_transaction:
            self._owner = None

    @property
    def has_next(self) -> bool:
        """Return whether a connection that waits may load now."""
        return self._owner is None and bool(self._waiting)

    def check(self) -> None:
        """Count one check, and release the lock after `MISSING_STORE_CHECKS` checks without a store."""
        if self._owner is None or self._is_transaction or not self._waiting:
            return
        self._checks += 1
        if self._checks >= MISSING_STORE_CHECKS:
            self._owner = None
            self._log("warning", "a Signal session was loaded and not stored; the lock is released")
