"""Decides what the relay does with each request on a connection of the library: forward it, hold it, or answer it.

- The clearing of a message from the decryption buffer is held until the event log has the message (`ack_gate.py`).
- The loading of a Signal session is held while another use of the Signal sessions goes on (`signal_lock.py`). So is the
  deletion of the device, which deletes all of them: Postgres would find it in a deadlock with a decryption.
- A write inside a transaction is answered here, and forwarded with the next request that needs an answer: it has no
  effect before its COMMIT. If the server refuses one, it refuses what follows in that transaction, COMMIT included.
  That is where the library sees the error.
- A decryption is committed without waiting for the disk. Postgres makes commits durable in their order, and the event
  log's commit, which comes later and before the acknowledgement, waits for both.
- The clearing of a message that the event log has is answered here, and becomes part of the next decryption's
  transaction, or is forwarded when nothing comes. If it is lost the message comes again, and the log recognises it.
"""

import struct
from dataclasses import dataclass

from service.whatsapp.relay.ack_gate import AckGate
from service.whatsapp.relay.framing import Requests, Statement
from service.whatsapp.relay.signal_lock import SignalLock


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
_CLEARED = _PREPARED + _done(b"UPDATE 1", b"I")

_USES = frozenset({Statement.LOAD_SESSION, Statement.LOAD_SESSIONS, Statement.DELETE_DEVICE})
_STORES = frozenset(
    {Statement.STORE_EVENT, Statement.STORE_SESSION, Statement.STORE_IDENTITY, Statement.STORE_SENDER_KEY}
)


@dataclass(frozen=True)
class Forward:
    """Send this to the server, and leave out its first answers, each up to a ReadyForQuery."""

    data: bytes
    answers_to_skip: int


@dataclass(frozen=True)
class Reply:
    """Send this to the client, in place of the server's answer."""

    data: bytes


class Interceptor:
    """The requests of one connection. The client waits for the answer to one before it sends the next."""

    def __init__(self, gate: AckGate, lock: "SignalLock[Interceptor]", clearings: list[bytes]) -> None:
        """`clearings`: of all connections: answered, and to be forwarded by the next decryption on any of them."""
        self.requests = Requests()
        self._gate = gate
        self._lock = lock
        self._held = b""
        self._held_statement: Statement | None = None
        self._begin = b""
        """The BEGIN of the open transaction, until it is forwarded."""
        self._stores: list[bytes] = []
        """Answered, and to be forwarded with the next request."""
        self._clearings = clearings
        self._in_transaction = self._is_decryption = False
        """As the client sees it: the server may not have heard of the transaction yet."""
        self._has_stored_session = False
        """Or has deleted all; since there was no open transaction."""

    @property
    def is_held(self) -> bool:
        """Return whether a request waits for the gate, or for the lock."""
        return bool(self._held)

    @property
    def waits_for_event(self) -> bool:
        """Return whether a request waits for the gate."""
        return self.is_held and self._held_statement is Statement.CLEAR

    @property
    def has_deferred(self) -> bool:
        """Return whether there is anything that was answered and not forwarded."""
        return bool(self._begin or self._stores or self._clearings)

    def receive(self, data: bytes, *, can_reply: bool) -> Forward | Reply | None:
        """Return what to do with what the client sent; None if it is held. Raises NotPostgres.

        `can_reply`: the client waits for nothing else.
        """
        self.requests.feed(data)
        statement = self.requests.statement
        can_reply = can_reply and self.requests.is_single
        if statement is Statement.CLEAR or statement in _USES:
            self._held, self._held_statement = data, statement
            return self.release(can_reply=can_reply)
        if statement is Statement.LOOK_UP:
            self._gate.expect_event()
        elif statement is Statement.BEGIN and can_reply:
            self._begin, self._in_transaction, self._is_decryption = data, True, False
            return Reply(_BEGUN)
        elif statement in _STORES:
            self._has_stored_session |= statement is Statement.STORE_SESSION
            if can_reply and self._in_transaction:
                self._stores.append(data)
                return Reply(_STORED)
        return self._forward(data, statement)

    def release(self, *, can_reply: bool) -> Forward | Reply | None:
        """Return what to do with the held request; None if it still waits."""
        if self._held_statement is Statement.CLEAR:
            if not self._gate.may_clear():
                return None
        elif not self._lock.acquire(self, in_transaction=self._in_transaction):
            return None
        data, self._held = self._held, b""
        self._has_stored_session |= self._held_statement is Statement.DELETE_DEVICE
        if self._held_statement is Statement.CLEAR and can_reply and self._gate.is_logged:
            self._clearings.append(data)
            return Reply(_CLEARED)
        return self._forward(data, self._held_statement)

    def clear(self) -> Forward | None:
        """Return what clears the messages that are to be cleared, if there are any and no transaction is open."""
        if not self._clearings or self._in_transaction:
            return None
        self._begin, self._stores = _BEGIN_ASYNCHRONOUS, self._take_clearings()
        deferred = self._take()
        return Forward(deferred.data + _COMMIT, deferred.answers_to_skip + 1)

    def answered(self, *, is_idle: bool) -> None:
        """Take note that the server has answered everything; `is_idle`: no transaction is open."""
        self._in_transaction = not is_idle
        if is_idle:
            self._lock.release(self, has_stored=self._has_stored_session)
            self._has_stored_session = False

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
