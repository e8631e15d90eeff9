"""Decides what the relay does with each request on a connection of the library: forward it, hold it, or answer it.

- The clearing of a message from the decryption buffer is held until the event log has the message (`ack_gate.py`).
- The loading of a Signal session is held while another use of the Signal sessions goes on (`signal_lock.py`). So is the
  deletion of the device, which deletes all of them: Postgres would find it in a deadlock with a decryption.
- A write inside a transaction is answered here, and forwarded with the next request that needs an answer: it has no
  effect before its COMMIT. If the server refuses one, it refuses what follows in that transaction, COMMIT included.
  That is where the library sees the error.
- A decryption is committed without waiting for the disk. Postgres makes commits durable in their order, and the event
  log's commit, which comes later and before the acknowledgement, waits for both.
- The COMMIT of a decryption is answered here, so that the library goes on. It is forwarded with the message's secret,
  which the library stores next and which becomes part of the transaction, or when the message's event begins to be
  handled. The event is handed to the node once the server has committed (`AckGate.wait_for_commit`). If the server
  refuses that the connection counts as lost: the process ends, and the message comes again.
- The clearing of a message that the event log has is answered here, and becomes part of the next decryption's
  transaction, or is forwarded when nothing comes. If it is lost the message comes again, and the log recognises it.
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


def _done(tag: bytes, status: bytes) -> bytes:
    return _message(b"C", tag + b"\0") + _message(b"Z", status)


_SYNC = _message(b"S")
_COMMIT = _query(b"COMMIT")
_BEGIN_ASYNCHRONOUS = _query(b"BEGIN; SET LOCAL synchronous_commit = off")
#: ParseComplete, BindComplete, NoData.
_PREPARED = _message(b"1") + _message(b"2") + _message(b"n")
_BEGUN = _done(b"BEGIN", b"T")
_STORED = _PREPARED + _done(b"INSERT 0 1", b"T")
_COMMITTED = _done(b"COMMIT", b"I")
_SECRET_STORED = _PREPARED + _done(b"INSERT 0 1", b"I")
_CLEARED = _PREPARED + _done(b"UPDATE 1", b"I")

_USES = frozenset({Statement.LOAD_SESSION, Statement.LOAD_SESSIONS, Statement.DELETE_DEVICE})
_STORES = {
    Statement.STORE_EVENT: 1,
    Statement.STORE_SESSION: 2,
    Statement.STORE_IDENTITY: 2,
    Statement.STORE_SENDER_KEY: 3,
    Statement.STORE_SECRET: 4,
}
"""How many of the first values of each are texts. Keys come behind them."""
_LONGEST_ID_BYTES = 512


def _is_ordinary(statement: Statement, request: bytes) -> bool:
    """Return whether Postgres has no reason to refuse the ids in a write; some of them are chosen by the sender."""
    try:
        ids = first_values(request, _STORES[statement])
    except (struct.error, ValueError):
        return False
    return all(value.isascii() and b"\0" not in value and len(value) <= _LONGEST_ID_BYTES for value in ids)


@dataclass(frozen=True)
class Forward:
    """Send this to the server, and leave out its first answers, each up to a ReadyForQuery."""

    data: bytes
    answers_to_skip: int
    must_succeed: bool = False
    """Errors among these answers are a loss."""


@dataclass(frozen=True)
class Reply:
    """Send this to the client, in place of the server's answer."""

    data: bytes


class Interceptor:
    """The requests of one connection. The client waits for the answer to one before it sends the next."""

    def __init__(self, gate: AckGate, lock: "SignalLock[Interceptor]", clearings: list[bytes]) -> None:
        """`clearings`: of all connections: answered, and to be forwarded by the next decryption on any of them."""
        self.requests = ClientMessages()
        self._gate = gate
        self._lock = lock
        self._held = b""
        self._held_statement: Statement | None = None
        self._begin = b""
        """The BEGIN of the open transaction, until it is forwarded."""
        self._stores: list[bytes] = []
        """Answered, and to be forwarded with the next request."""
        self._commit = b""
        """The COMMIT of a decryption, answered and not forwarded."""
        self._has_secret = self._is_committing = False
        self._clearings = clearings
        self._in_transaction = self._is_decryption = False
        """As the client sees it: the server may not have heard of the transaction yet, or of its end."""
        self._is_ordinary = True
        """No store of the transaction gives Postgres a reason to refuse it."""
        self._has_stored_session = False
        """Or has deleted all; since there was no open transaction."""

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
        """Return whether there is anything that was answered and not forwarded."""
        return bool(self._begin or self._stores or self._commit or self._clearings)

    @property
    def is_commit_due(self) -> bool:
        """Return whether a COMMIT is to be forwarded that was answered."""
        return bool(self._commit) and (self._has_secret or self.is_held or self._gate.wants_commit)

    def receive(self, data: bytes, *, can_reply: bool) -> Forward | Reply | None:
        """Return what to do with what the client sent; None if it is held. Raises NotPostgres.

        `can_reply`: the client waits for nothing else.
        """
        self.requests.feed(data)
        statement = self.requests.statement
        if not self._commit:
            return self._decide(data, statement, can_reply=can_reply and self.requests.is_single)
        if statement is Statement.STORE_SECRET and self.requests.is_single and _is_ordinary(statement, data):
            self._stores.append(data)
            self._has_secret = True
            return Reply(_SECRET_STORED)
        self._hold(data, statement)
        return None

    def release(self, *, can_reply: bool) -> Forward | Reply | None:
        """Return what to do with the held request; None if it still waits."""
        if self._commit:
            return None
        data, self._held = self._held, b""
        return self._decide(data, self._held_statement, can_reply=can_reply and self.requests.is_single)

    def flush(self) -> Forward | None:
        """Return what was answered and may be forwarded by itself: a COMMIT; clearings, if no transaction is open."""
        if commit := self._commit:
            self._commit, self._has_secret, self._is_committing = b"", False, True
            self._gate.forward_commit()
        elif self._clearings and not self._in_transaction:
            self._begin, commit = _BEGIN_ASYNCHRONOUS, _COMMIT
        else:
            return None
        self._stores += self._take_clearings()
        deferred = self._take()
        return Forward(deferred.data + commit, deferred.answers_to_skip + 1, must_succeed=self._is_committing)

    def answered(self, *, is_idle: bool) -> None:
        """Take note that the server has answered everything; `is_idle`: no transaction is open."""
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
        if statement in _USES:
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
        """Return the answer to a request of a transaction that the server need not see yet."""
        if statement is Statement.BEGIN:
            self._begin, self._in_transaction, self._is_decryption, self._is_ordinary = data, True, False, True
            return Reply(_BEGUN)
        if not self._in_transaction:
            return None
        if statement in _STORES:
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
        deferred = self._take()
        return Forward(deferred.data + data, deferred.answers_to_skip)

    def _take_clearings(self) -> list[bytes]:
        clearings = self._clearings.copy()
        self._clearings.clear()
        return clearings

    def _take(self) -> Forward:
        """Take what is deferred. What is stored gets one Sync for all: the server answers it in one piece."""
        begin, stores = self._begin, b"".join(store.removesuffix(_SYNC) for store in self._stores)
        answers = bool(self._begin) + bool(self._stores)
        self._begin, self._stores = b"", []
        return Forward(begin + stores + _SYNC if stores else begin, answers)
