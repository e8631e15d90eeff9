"""What the relay holds, answers itself and forwards with the next request, as both ends of a connection see it."""

from collections.abc import Iterator

import pytest

from service.pgrelay.signal_lock import SignalLock
from tests.fakes.postgres_messages import (
    IN_TRANSACTION,
    PARSED_AND_BOUND,
    QUERY,
    READY,
    ROW,
    SYNC,
    TERMINATE,
    error,
    message,
)
from tests.fakes.postgres_messages import as_lib_pq_asks as asks
from tests.fakes.relay_harness import Line

BEGIN, COMMIT, ROLLBACK = (message("Q", text) for text in (b"BEGIN READ WRITE\0", b"COMMIT\0", b"ROLLBACK\0"))
ASYNCHRONOUS = message("Q", b"BEGIN; SET LOCAL synchronous_commit = off\0")
LOAD_SESSION = asks("SELECT session FROM whatsmeow_sessions WHERE our_jid=$1 AND their_id=$2")
LOAD_SESSIONS = asks("SELECT their_id, session FROM whatsmeow_sessions WHERE our_jid=$1 AND their_id = ANY($2)")
LOAD_SENDER_KEY = asks("SELECT sender_key FROM whatsmeow_sender_keys WHERE our_jid=$1")
SELECT_IDENTITY = asks("SELECT identity FROM whatsmeow_identity_keys WHERE our_jid=$1 AND their_id=$2")
STORE_SESSION = asks("\n\t\tINSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES ($1, $2, $3)")
STORE_IDENTITY = asks("\n\t\tINSERT INTO whatsmeow_identity_keys (our_jid, their_id, identity) VALUES ($1, $2, $3)")
STORE_SENDER_KEY = asks("INSERT INTO whatsmeow_sender_keys (our_jid, chat_id, sender_id, sender_key) VALUES ($1)")
STORE_EVENT = asks("\n\t\tINSERT INTO whatsmeow_event_buffer (our_jid, ciphertext_hash, plaintext) VALUES ($1, $2)")
COPY_SESSIONS = asks("\n\t\tINSERT INTO whatsmeow_sessions (our_jid, their_id, session)\n\t\tSELECT our_jid")
DELETE_DEVICE = asks("DELETE FROM whatsmeow_device WHERE jid=$1")
LOOK_UP = asks("SELECT plaintext, server_timestamp, insert_timestamp FROM whatsmeow_event_buffer WHERE our_jid = $1")
CLEAR = asks("\n\t\tUPDATE whatsmeow_event_buffer SET plaintext = NULL WHERE our_jid = $1 AND ciphertext_hash = $2")

BEGUN = message("C", b"BEGIN\0") + IN_TRANSACTION
STORED = PARSED_AND_BOUND + message("C", b"INSERT 0 1\0") + IN_TRANSACTION
CLEARED = PARSED_AND_BOUND + message("C", b"UPDATE 1\0") + READY
COMMITTED = message("C", b"COMMIT\0") + READY
FOUND = ROW + IN_TRANSACTION


def joined(*requests: bytes) -> bytes:
    """Requests with one Sync for all."""
    return b"".join(request.removesuffix(SYNC) for request in requests) + SYNC


@pytest.fixture
def lock() -> SignalLock:
    return SignalLock(lambda *_: None)


@pytest.fixture
def clearings() -> list[bytes]:
    return []


@pytest.fixture
def line(lock: SignalLock, clearings: list[bytes]) -> Iterator[Line]:
    line = Line(lock=lock, clearings=clearings)
    line.log_in()
    yield line
    line.close()


@pytest.fixture
def other(lock: SignalLock, clearings: list[bytes]) -> Iterator[Line]:
    other = Line(lock=lock, clearings=clearings)
    other.log_in()
    yield other
    other.close()


def ask(line: Line, request: bytes) -> tuple[bytes | None, bytes | None]:
    """Return what reaches the server, and what the client is answered at once."""
    line.client.send(request)
    line.splice.pump()
    return line.heard(line.server), line.heard(line.client)


def answer(line: Line, answers: bytes) -> bytes | None:
    """Return what the client hears of the server's answers."""
    line.server.send(answers)
    line.splice.pump()
    return line.heard(line.client)


def decrypt(line: Line) -> bytes | None:
    """Have the library decrypt a message; return what the server got with the COMMIT."""
    ask(line, LOOK_UP)
    answer(line, ROW + READY)
    ask(line, BEGIN)
    ask(line, LOAD_SESSION)
    answer(line, IN_TRANSACTION + FOUND)
    for store in (STORE_SESSION, STORE_EVENT):
        assert ask(line, store) == (None, STORED)
    committed, _ = ask(line, COMMIT)
    answer(line, STORED + COMMITTED)
    return committed


def test_the_writes_of_a_transaction_are_forwarded_with_its_commit(line: Line) -> None:
    assert ask(line, BEGIN) == (None, BEGUN)
    assert ask(line, STORE_SESSION) == (None, STORED)
    assert ask(line, STORE_SENDER_KEY) == (None, STORED)
    assert ask(line, COMMIT) == (BEGIN + joined(STORE_SESSION, STORE_SENDER_KEY) + COMMIT, None)
    assert answer(line, BEGUN + STORED + COMMITTED) == COMMITTED


@pytest.mark.parametrize("cut", range(1, len(BEGUN + STORED + COMMITTED)))
def test_their_answers_are_left_out_however_they_come(line: Line, cut: int) -> None:
    ask(line, BEGIN)
    ask(line, STORE_SESSION)
    ask(line, COMMIT)
    answers = BEGUN + STORED + COMMITTED
    assert (answer(line, answers[:cut]) or b"") + (answer(line, answers[cut:]) or b"") == COMMITTED


def test_a_read_has_the_writes_before_it_forwarded_first(line: Line) -> None:
    ask(line, BEGIN)
    ask(line, STORE_IDENTITY)
    assert ask(line, SELECT_IDENTITY) == (BEGIN + joined(STORE_IDENTITY) + SELECT_IDENTITY, None)
    assert answer(line, BEGUN + STORED + FOUND) == FOUND
    assert ask(line, ROLLBACK) == (ROLLBACK, None)


def test_a_write_that_is_refused_shows_in_the_commit(line: Line) -> None:
    ask(line, BEGIN)
    ask(line, STORE_SESSION)
    ask(line, COMMIT)
    rolled_back = message("C", b"ROLLBACK\0") + READY
    assert (
        answer(line, BEGUN + error("ERROR", "23503", "no such device") + message("Z", b"E") + rolled_back)
        == rolled_back
    )


def test_a_server_that_is_lost_with_them_is_silence(line: Line) -> None:
    ask(line, BEGIN)
    ask(line, STORE_SESSION)
    line.server.close()
    assert line.is_lost()
    assert not line.splice.close_idle()
    assert line.heard(line.client) is None


def test_a_write_outside_of_a_transaction_is_just_forwarded(line: Line) -> None:
    assert ask(line, STORE_SESSION) == (STORE_SESSION, None)


def test_so_is_one_whose_number_of_rows_matters(line: Line) -> None:
    ask(line, BEGIN)
    assert ask(line, COPY_SESSIONS) == (BEGIN + COPY_SESSIONS, None)


@pytest.mark.parametrize("cut", range(1, len(STORE_SESSION)))
def test_so_is_one_that_comes_in_pieces(line: Line, cut: int) -> None:
    ask(line, BEGIN)
    heard = [ask(line, piece) for piece in (STORE_SESSION[:cut], STORE_SESSION[cut:])]
    assert heard == [(BEGIN + STORE_SESSION[:cut], None), (STORE_SESSION[cut:], None)]
    assert answer(line, BEGUN + STORED) == STORED


def test_two_requests_at_once_are_just_forwarded(line: Line) -> None:
    assert ask(line, BEGIN + QUERY) == (BEGIN + QUERY, None)
    assert answer(line, BEGUN + FOUND) == BEGUN + FOUND


@pytest.mark.parametrize("load", [LOAD_SESSION, LOAD_SENDER_KEY])
def test_a_decryption_does_not_wait_for_the_disk(line: Line, load: bytes) -> None:
    ask(line, BEGIN)
    assert ask(line, load) == (ASYNCHRONOUS + load, None)
    assert answer(line, IN_TRANSACTION + FOUND) == FOUND


def test_a_send_does(line: Line) -> None:
    assert ask(line, LOAD_SESSIONS) == (LOAD_SESSIONS, None)
    answer(line, ROW + READY)
    ask(line, BEGIN)
    ask(line, STORE_SESSION)
    assert ask(line, COMMIT) == (BEGIN + joined(STORE_SESSION) + COMMIT, None)


def test_a_message_in_the_log_is_cleared_by_the_next_decryption(line: Line) -> None:
    decrypt(line)
    with line.gate.handling(is_message=True):
        line.gate.log()
    assert ask(line, CLEAR) == (None, CLEARED)
    assert line.splice.is_busy
    assert decrypt(line) == joined(STORE_SESSION, STORE_EVENT, CLEAR) + COMMIT
    assert not line.splice.is_busy


def test_any_connection_clears_it(line: Line, other: Line) -> None:
    """The library closes connections that it does not need."""
    decrypt(line)
    with line.gate.handling(is_message=True):
        line.gate.log()
    ask(line, CLEAR)
    line.client.send(TERMINATE)
    line.splice.pump()
    assert decrypt(other) == joined(STORE_SESSION, STORE_EVENT, CLEAR) + COMMIT


def test_it_is_cleared_for_itself_if_none_comes(line: Line) -> None:
    decrypt(line)
    with line.gate.handling(is_message=True):
        line.gate.log()
    ask(line, CLEAR)
    line.splice.flush()
    assert line.heard(line.server) == ASYNCHRONOUS + joined(CLEAR) + message("Q", b"COMMIT\0")
    line.splice.flush()
    assert line.heard(line.server) is None
    assert answer(line, IN_TRANSACTION + STORED + COMMITTED) is None
    assert not line.splice.is_busy
    assert ask(line, BEGIN) == (None, BEGUN)


def test_it_is_not_while_a_transaction_is_open(line: Line) -> None:
    decrypt(line)
    with line.gate.handling(is_message=True):
        line.gate.log()
    ask(line, CLEAR)
    ask(line, BEGIN)
    line.splice.flush()
    assert line.heard(line.server) is None


def test_the_next_request_waits_until_it_is_cleared(line: Line) -> None:
    """A connection pooler may give the answer to another client, or drop it."""
    decrypt(line)
    with line.gate.handling(is_message=True):
        line.gate.log()
    ask(line, CLEAR)
    line.splice.flush()
    line.heard(line.server)
    assert line.splice.client_events == 0
    assert ask(line, LOOK_UP) == (None, None)
    assert answer(line, IN_TRANSACTION + STORED + COMMITTED) is None
    assert line.heard(line.server) == LOOK_UP
    assert answer(line, ROW + READY) == ROW + READY


def test_a_message_that_brought_nothing_for_the_log_waits_for_the_disk(line: Line) -> None:
    """Nothing else would make its decryption durable before it is acknowledged."""
    decrypt(line)
    with line.gate.handling(is_message=True):
        pass
    assert ask(line, CLEAR) == (CLEAR, None)
    assert answer(line, CLEARED) == CLEARED


def test_a_load_waits_while_a_decryption_is_under_way(line: Line, other: Line) -> None:
    ask(line, BEGIN)
    ask(line, LOAD_SESSION)
    answer(line, IN_TRANSACTION + FOUND)
    assert ask(other, LOAD_SESSIONS) == (None, None)
    assert other.splice.client_events == 0
    ask(line, STORE_SESSION)
    ask(line, COMMIT)
    other.splice.pump(client=False, server=False)
    assert other.heard(other.server) is None
    answer(line, STORED + COMMITTED)
    other.splice.pump(client=False, server=False)
    assert other.heard(other.server) == LOAD_SESSIONS


def test_a_decryption_waits_while_a_send_is_under_way(line: Line, other: Line) -> None:
    ask(line, LOAD_SESSIONS)
    answer(line, ROW + READY)
    ask(other, BEGIN)
    assert ask(other, LOAD_SESSION) == (None, None)
    assert not other.splice.interceptor.waits_for_event
    ask(line, BEGIN)
    ask(line, STORE_SESSION)
    ask(line, COMMIT)
    answer(line, BEGUN + STORED + COMMITTED)
    other.splice.pump(client=False, server=False)
    assert other.heard(other.server) == ASYNCHRONOUS + LOAD_SESSION


def test_the_device_is_deleted_between_two_decryptions(line: Line, other: Line) -> None:
    ask(line, BEGIN)
    ask(line, LOAD_SESSION)
    answer(line, IN_TRANSACTION + IN_TRANSACTION)
    assert ask(other, DELETE_DEVICE) == (None, None)
    ask(line, ROLLBACK)
    answer(line, message("C", b"ROLLBACK\0") + READY)
    other.splice.pump(client=False, server=False)
    assert other.heard(other.server) == DELETE_DEVICE
    ask(line, BEGIN)
    assert ask(line, LOAD_SESSION) == (None, None)
    answer(other, PARSED_AND_BOUND + message("C", b"DELETE 1\0") + READY)
    line.splice.pump(client=False, server=False)
    assert line.heard(line.server) == ASYNCHRONOUS + LOAD_SESSION
