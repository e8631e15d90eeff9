"""Decides for each request of the library whether the relay forwards it, holds it or answers it.

- The clearing of a message from the decryption buffer is held until the event log has the message (`ack_gate.py`).
- The loading of a Signal session is held while another use of the Signal sessions goes on (`signal_lock.py`). So is the
  deletion of the device, which deletes all Signal sessions and could deadlock with a decryption.
- A write inside a transaction is answered here, and forwarded with the next request that needs an answer, because the
  write has no effect before its COMMIT. If the server refuses the write, it also refuses the rest of the transaction,
  COMMIT included, and the library sees that error.
- A decryption is committed without waiting for the disk. Postgres makes commits durable in their order, and the event
  log's commit, which comes later and before the acknowledgement, waits for both.
- The COMMIT of a decryption is answered here, so that the library continues. It is forwarded with the message's secret,
  which the library stores next and which becomes part of the transaction, or when a callback begins to handle the
  message's event. The node gets the event once the server has committed (`AckGate.wait_for_commit`). If the server
  refuses the COMMIT, the connection counts as lost: the process ends, and WhatsApp sends the message again.
- The clearing of a message that the event log has is answered here, and becomes part of the next decryption's
  transaction, or is forwarded if no decryption comes. If it is lost, WhatsApp sends the message again, and the event
  log recognises it.
"""

import struct
from dataclasses import dataclass

from service.pgrelay.ack_gate import AckGate
from service.pgrelay.framing import ClientMessages, Statement, first_values
from service.pgrelay.signal_lock import SignalLock


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


def _query(text: bytes) -> bytes:
    return _message(b"Q", text + b"\0")


def _completed(tag: bytes, status: bytes) -> bytes:
    return _message(b"C", tag + b"\0") + _message(b"Z", status)


_SYNC = _message(b"S")
_COMMIT = _query(b"COMMIT")
_BEGIN_ASYNCHRONOUS = _query(b"BEGIN; SET LOCAL synchronous_commit = off")
#: ParseComplete, BindComplete, NoData.
_PARSED_AND_BOUND = _message(b"1") + _message(b"2") + _message(b"n")
_BEGUN = _completed(b"BEGIN", b"T")
_STORED = _PARSED_AND_BOUND + _completed(b"INSERT 0 1", b"T")
_COMMITTED = _completed(b"COMMIT", b"I")
_SECRET_STORED = _PARSED_AND_BOUND + _completed(b"INSERT 0 1", b"I")
_CLEARED = _PARSED_AND_BOUND + _completed(b"UPDATE 1", b"I")

_LOCKED_STATEMENTS = frozenset({Statement.LOAD_SESSION, Statement.LOAD_SESSIONS, Statement.DELETE_DEVICE})
_ID_COUNTS = {
    Statement.STORE_EVENT: 1,
    Statement.STORE_SESSION: 2,
    Statement.STORE_IDENTITY: 2,
    Statement.STORE_SENDER_KEY: 3,
    Statement.STORE_SECRET: 4,
}
"""For each write, how many of its first values are ids; binary values follow."""
_MAX_ID_BYTES = 512


def _is_ordinary(statement: Statement, request: bytes) -> bool:
    """Return whether Postgres will accept the ids in a write, some of which the sender has chosen."""
    try:
        ids = first_values(request, _ID_COUNTS[statement])
    except (struct.error, ValueError):
        return False
    return all(value.isascii() and b"\0" not in value and len(value) <= _MAX_ID_BYTES for value in ids)


@dataclass(frozen=True)
class Forward:
    """Send `data` to the server, and skip its first answers, each up to a ReadyForQuery."""

    data: bytes
    answers_to_skip: int
    must_succeed: bool = False
    """An error among the skipped answers is a loss."""


@dataclass(frozen=True)
class Reply:
    """Send `data` to the client in place of the server's answer."""

    data: bytes


class Interceptor:
    """Handles the requests of one connection, whose client waits for each answer before the next request."""

    def __init__(self, gate: AckGate, lock: SignalLock, clearings: list[bytes]) -> None:
        """`clearings`: answered clearings, shared by all connections; the next decryption on any forwards them."""
        self.requests = ClientMessages()
        self._gate = gate
        self._lock = lock
        self._held = b""
        self._held_statement: Statement | None = None
        self._begin = b""
        """The deferred BEGIN of the open transaction."""
        self._stores: list[bytes] = []
        """Writes that were answered and are forwarded with the next request."""
        self._commit = b""
        """The deferred COMMIT of a decryption."""
        self._has_secret = self._is_committing = False
        self._clearings = clearings
        self._in_transaction = self._is_decryption = False
        """The client's view: the server may not have received the BEGIN or the COMMIT yet."""
        self._is_ordinary = True
        """Postgres will accept the ids in all writes of the transaction."""
        self._has_stored_session = False
        """Whether a Signal session was stored, or all were deleted, since the last end of a transaction."""

    @property
    def is_held(self) -> bool:
        """Return whether a request waits for the gate, for the lock, or for a COMMIT."""
        return bool(self._held)

    @property
    def waits_for_event(self) -> bool:
        """Return whether a request waits for the gate."""
        return self.is_held and self._held_statement is Statement.CLEAR

    @property
    def has_deferred(self) -> bool:
        """Return whether a request was answered and not forwarded."""
        return bool(self._begin or self._stores or self._commit or self._clearings)

    @property
    def is_commit_due(self) -> bool:
        """Return whether the deferred COMMIT must be forwarded now."""
        return bool(self._commit) and (self._has_secret or self.is_held or self._gate.wants_commit)

    def receive(self, data: bytes, *, can_reply: bool) -> Forward | Reply | None:
        """Return what to do with bytes from the client; None if they are held. Raise NotPostgres.

        `can_reply`: the client waits for no other answer.
        """
        self.requests.feed(data)
        statement = self.requests.statement
        can_reply = can_reply and self.requests.is_single
        if not self._commit:
            return self._decide(data, statement, can_reply=can_reply)
        if can_reply and statement is Statement.STORE_SECRET and _is_ordinary(statement, data):
            self._stores.append(data)
            self._has_secret = True
            return Reply(_SECRET_STORED)
        self._hold(data, statement)
        return None

    def release(self, *, can_reply: bool) -> Forward | Reply | None:
        """Return what to do with the held request; None if it must still wait."""
        if self._commit:
            return None
        data, self._held = self._held, b""
        return self._decide(data, self._held_statement, can_reply=can_reply and self.requests.is_single)

    def flush(self) -> Forward | None:
        """Return the deferred COMMIT, or the clearings if no transaction is open; None if there is neither."""
        if commit := self._commit:
            self._commit, self._has_secret, self._is_committing = b"", False, True
            self._gate.forward_commit()
        elif self._clearings and not self._in_transaction:
            self._begin, commit = _BEGIN_ASYNCHRONOUS, _COMMIT
        else:
            return None
        self._stores += self._take_clearings()
        deferred = self._take_deferred()
        return Forward(deferred.data + commit, deferred.answers_to_skip + 1, must_succeed=self._is_committing)

    def answered(self, *, is_idle: bool) -> None:
        """Record that the server has answered all requests; `is_idle`: no transaction is open."""
        self._in_transaction = not is_idle
        if is_idle:
            self._lock.release(self, has_stored=self._has_stored_session)
            self._has_stored_session = False
        if self._is_committing:
            self._is_committing = False
            self._gate.end_commit()

    def _hold(self, data: bytes, statement: Statement | None) -> None:
        self._held, self._held_statement = data, statement

    def _decide(self, data: bytes, statement: Statement | None, *, can_reply: bool) -> Forward | Reply | None:
        if statement in _LOCKED_STATEMENTS:
            if not self._lock.acquire(self, in_transaction=self._in_transaction):
                self._hold(data, statement)
                return None
            self._has_stored_session |= statement is Statement.DELETE_DEVICE
        elif statement is Statement.CLEAR:
            if not self._gate.may_clear():
                self._hold(data, statement)
                return None
            if can_reply and self._gate.is_logged:
                self._clearings.append(data)
                return Reply(_CLEARED)
        elif statement is Statement.LOOK_UP:
            self._gate.expect_event()
        elif statement is Statement.STORE_SESSION:
            self._has_stored_session = True
        reply = self._answer(data, statement) if can_reply else None
        return reply or self._forward(data, statement)

    def _answer(self, data: bytes, statement: Statement | None) -> Reply | None:
        """Return the relay's answer to a request that can be deferred; None if it cannot."""
        if statement is Statement.BEGIN:
            self._begin, self._in_transaction, self._is_decryption, self._is_ordinary = data, True, False, True
            return Reply(_BEGUN)
        if not self._in_transaction:
            return None
        if statement in _ID_COUNTS:
            self._is_ordinary &= _is_ordinary(statement, data)
            self._stores.append(data)
            return Reply(_STORED)
        if statement is Statement.COMMIT and self._is_decryption and self._is_ordinary:
            self._commit, self._in_transaction = data, False
            self._gate.defer_commit()
            return Reply(_COMMITTED)
        return None

    def _forward(self, data: bytes, statement: Statement | None) -> Forward:
        if self._begin and statement in {Statement.LOAD_SESSION, Statement.LOAD_SENDER_KEY}:
            # Only a decryption loads one inside a transaction.
            self._begin, self._is_decryption = _BEGIN_ASYNCHRONOUS, True
        if self._is_decryption and statement is Statement.COMMIT:
            self._stores += self._take_clearings()
        deferred = self._take_deferred()
        return Forward(deferred.data + data, deferred.answers_to_skip)

    def _take_clearings(self) -> list[bytes]:
        clearings = self._clearings.copy()
        self._clearings.clear()
        return clearings

    def _take_deferred(self) -> Forward:
        """Remove and return the deferred statements. All writes share one Sync, so one answer is skipped for them."""
        begin, stores = self._begin, b"".join(store.removesuffix(_SYNC) for store in self._stores)
        answers = bool(self._begin) + bool(self._stores)
        self._begin, self._stores = b"", []
        return Forward(begin + stores + _SYNC if stores else begin, answers)
