"""The COMMIT of a decryption that the relay answers before the server has heard of it."""

import threading
from collections.abc import Iterator

import pytest

from service.pgrelay.ack_gate import AckGate
from service.pgrelay.signal_lock import SignalLock
from tests.fakes.postgres_messages import (
    IN_TRANSACTION,
    PARSED_AND_BOUND,
    READY,
    ROW,
    SYNC,
    TERMINATE,
    error,
    message,
)
from tests.fakes.postgres_messages import as_lib_pq_asks as asks
from tests.fakes.relay_harness import Line

US, FRIEND = b"491511111111:7@s.whatsapp.net", b"491522222222:0"
KEY = b"\x00\xff" * 16
BEGIN, COMMIT, ROLLBACK = (message("Q", text) for text in (b"BEGIN READ WRITE\0", b"COMMIT\0", b"ROLLBACK\0"))
LOOK_UP = asks("SELECT plaintext, server_timestamp, insert_timestamp FROM whatsmeow_event_buffer WHERE our_jid = $1")
LOAD = asks("SELECT session FROM whatsmeow_sessions WHERE our_jid=$1 AND their_id=$2", US, FRIEND)
STORE = asks("INSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES ($1, $2, $3)", US, FRIEND, KEY)
STORE_EVENT = asks("INSERT INTO whatsmeow_event_buffer (our_jid, ciphertext_hash, plaintext) VALUES", US, KEY, KEY)
CLEAR = asks("UPDATE whatsmeow_event_buffer SET plaintext = NULL WHERE our_jid = $1 AND ciphertext_hash = $2")

STORED = PARSED_AND_BOUND + message("C", b"INSERT 0 1\0")
COMMITTED = message("C", b"COMMIT\0") + READY


def secret(message_id: bytes = b"3EB0C0FFEE") -> bytes:
    text = "\n\t\tINSERT INTO whatsmeow_message_secrets (our_jid, chat_jid, sender_jid, message_id, key)\n\t\tVALUES"
    return asks(text, US, FRIEND, FRIEND, message_id, KEY)


def joined(*requests: bytes) -> bytes:
    """Requests with one Sync for all."""
    return b"".join(request.removesuffix(SYNC) for request in requests) + SYNC


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(lock=SignalLock(lambda *_: None))
    line.log_in()
    yield line
    line.close()


def ask(line: Line, request: bytes) -> tuple[bytes | None, bytes | None]:
    """Return what reaches the server, and what the client is answered at once."""
    line.client.send(request)
    line.splice.pump()
    return line.heard(line.server), line.heard(line.client)


def answer(line: Line, answers: bytes) -> bytes | None:
    """Return what the client hears of the server's answers."""
    line.server.send(answers)
    line.splice.pump(client=False)
    return line.heard(line.client)


def decrypt(line: Line, store: bytes = STORE) -> tuple[bytes | None, bytes | None]:
    """Have the library decrypt a message; return what the server and the client hear when it is to be committed."""
    ask(line, LOOK_UP)
    answer(line, ROW + READY)
    ask(line, BEGIN)
    ask(line, LOAD)
    answer(line, IN_TRANSACTION + ROW + IN_TRANSACTION)
    for request in (store, STORE_EVENT):
        assert ask(line, request) == (None, STORED + IN_TRANSACTION)
    return ask(line, COMMIT)


def is_committed(gate: AckGate) -> bool:
    """Return whether an event may be handed to the node."""
    waiting = threading.Thread(target=gate.wait_for_commit, daemon=True)
    waiting.start()
    waiting.join(0.1)
    return not waiting.is_alive()


def test_it_is_forwarded_with_the_secret_that_follows(line: Line) -> None:
    assert decrypt(line) == (None, COMMITTED)
    assert ask(line, secret()) == (joined(STORE, STORE_EVENT, secret()) + COMMIT, STORED + READY)
    assert not is_committed(line.gate)
    assert answer(line, STORED + STORED + STORED + IN_TRANSACTION + COMMITTED) is None
    assert is_committed(line.gate)
    assert not line.splice.is_busy


def test_it_is_forwarded_when_its_event_is_handled(line: Line) -> None:
    rung = []
    line.gate.notify(lambda: rung.append(1))
    decrypt(line)
    assert not rung
    with line.gate.handling(is_message=True):
        assert rung
        line.splice.pump(client=False, server=False)
        assert line.heard(line.server) == joined(STORE, STORE_EVENT) + COMMIT
        assert not is_committed(line.gate)
        answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED)
        assert is_committed(line.gate)


def test_it_is_forwarded_after_a_while(line: Line) -> None:
    decrypt(line)
    assert line.splice.is_busy
    line.splice.flush()
    assert line.heard(line.server) == joined(STORE, STORE_EVENT) + COMMIT


@pytest.mark.parametrize("request_", [LOOK_UP, BEGIN, CLEAR, STORE, TERMINATE])
def test_another_request_waits_until_the_server_has_committed(line: Line, request_: bytes) -> None:
    """A connection pooler may not take it before."""
    decrypt(line)
    with line.gate.handling(is_message=True):
        pass
    assert ask(line, request_) == (joined(STORE, STORE_EVENT) + COMMIT, None)
    assert line.splice.client_events == 0
    replied = answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED)
    begun = message("C", b"BEGIN\0") + IN_TRANSACTION
    assert (replied, line.heard(line.server)) == ((begun, None) if request_ is BEGIN else (None, request_))


def test_the_clearing_on_another_connection_waits_as_well(line: Line) -> None:
    other = Line(gate=line.gate)
    other.log_in()
    decrypt(line)
    with line.gate.handling(is_message=True):
        line.gate.log()
    assert ask(other, CLEAR) == (None, None)
    line.splice.flush()
    other.splice.pump(client=False, server=False)
    assert other.heard(other.client) is None
    rung = []
    line.gate.notify(lambda: rung.append(1))
    answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED)
    assert rung
    other.splice.pump(client=False, server=False)
    assert other.heard(other.client) == PARSED_AND_BOUND + message("C", b"UPDATE 1\0") + READY
    other.close()


def test_a_load_on_another_connection_waits_as_well(line: Line) -> None:
    lock = line.lock
    other = Line(lock=lock)
    other.log_in()
    decrypt(line)
    assert ask(other, LOAD) == (None, None)
    line.splice.flush()
    other.splice.pump(client=False, server=False)
    assert other.heard(other.server) is None
    answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED)
    other.splice.pump(client=False, server=False)
    assert other.heard(other.server) == LOAD
    other.close()


def test_a_refusal_is_a_loss(line: Line) -> None:
    """The library takes it for committed: only a new process can start over."""
    decrypt(line)
    ask(line, secret())
    rolled_back = message("C", b"ROLLBACK\0") + READY
    line.server.send(error("ERROR", "23503", "no such device") + message("Z", b"E") + rolled_back)
    assert line.is_lost()
    assert line.heard(line.client) is None
    assert not line.splice.close_idle()
    assert not is_committed(line.gate)


def test_a_server_that_is_gone_is_a_loss_before_it_is_forwarded(line: Line) -> None:
    decrypt(line)
    line.server.close()
    assert line.is_lost()
    assert not line.splice.close_idle()


def test_a_refusal_of_a_later_statement_is_none(line: Line) -> None:
    decrypt(line)
    ask(line, secret())
    answer(line, STORED + STORED + STORED + IN_TRANSACTION + COMMITTED)
    assert ask(line, STORE) == (STORE, None)
    refused = error("ERROR", "23503", "no such device") + READY
    assert answer(line, refused) == refused


@pytest.mark.parametrize("message_id", [b"with\0zero", b"\xff", b"x" * 513], ids=["zero", "no text", "too long"])
def test_a_secret_that_postgres_may_refuse_is_stored_by_itself(line: Line, message_id: bytes) -> None:
    """Its sender chooses the message's id."""
    decrypt(line)
    assert ask(line, secret(message_id)) == (joined(STORE, STORE_EVENT) + COMMIT, None)
    assert answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED) is None
    assert line.heard(line.server) == secret(message_id)
    refused = error("ERROR", "22021", "invalid byte sequence") + READY
    assert answer(line, refused) == refused


def test_so_is_a_decryption(line: Line) -> None:
    store = asks("INSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES ($1, $2, $3)", US, b"\xff", KEY)
    assert decrypt(line, store) == (joined(store, STORE_EVENT) + COMMIT, None)
    assert answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED) == COMMITTED


def test_a_rollback_is_just_forwarded(line: Line) -> None:
    ask(line, BEGIN)
    ask(line, LOAD)
    answer(line, IN_TRANSACTION + ROW + IN_TRANSACTION)
    assert ask(line, ROLLBACK) == (ROLLBACK, None)


def test_the_commit_of_a_send_is_not_answered_ahead(line: Line) -> None:
    ask(line, BEGIN)
    ask(line, STORE)
    assert ask(line, COMMIT) == (BEGIN + joined(STORE) + COMMIT, None)


def test_a_request_in_pieces_waits_for_the_commit(line: Line) -> None:
    decrypt(line)
    assert ask(line, LOOK_UP[:20]) == (joined(STORE, STORE_EVENT) + COMMIT, None)
    assert answer(line, STORED + STORED + IN_TRANSACTION + COMMITTED) is None
    assert line.heard(line.server) == LOOK_UP[:20]
    assert ask(line, LOOK_UP[20:]) == (LOOK_UP[20:], None)
    assert answer(line, ROW + READY) == ROW + READY
