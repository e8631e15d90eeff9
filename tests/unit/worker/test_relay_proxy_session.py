"""Two connections that are one, and how it ends."""

import socket
import struct
from collections.abc import Iterator

import pytest

from service.pgrelay.proxy_session import READ, WRITE, Lost
from tests.fakes.postgres_messages import (
    AUTHENTICATED,
    IN_TRANSACTION,
    QUERY,
    READY,
    ROW,
    SYNC,
    TERMINATE,
    error,
    message,
)
from tests.fakes.relay_harness import Line


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    line.log_in()
    yield line
    line.close()


def test_what_either_says_goes_to_the_other(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    assert line.heard(line.server) == QUERY
    line.server.send(ROW + READY)
    line.splice.pump()
    assert line.heard(line.client) == ROW + READY


def test_an_ordinary_error_is_passed_on(line: Line) -> None:
    line.client.send(QUERY)
    line.server.send(error("ERROR", "23505", "twice") + READY)
    line.splice.pump()
    assert line.heard(line.client) == error("ERROR", "23505", "twice") + READY


@pytest.mark.parametrize("split", range(1, len(error("FATAL", "57P01", "bye"))))
def test_of_a_loss_the_client_hears_nothing(line: Line, split: int) -> None:
    words = error("FATAL", "57P01", "bye")
    line.server.send(words[:split])
    line.splice.pump()
    line.server.send(words[split:])
    with pytest.raises(Lost, match="FATAL 57P01: bye"):
        line.splice.pump()
    assert line.heard(line.client) is None


def test_what_a_server_had_answered_before_it_was_lost_is_passed_on(line: Line) -> None:
    """The answer to a COMMIT, say: it has been made, and the library must go on to hand over what it decrypted."""
    line.client.send(QUERY)
    line.splice.pump()
    line.server.send(ROW + READY + error("FATAL", "57P01", "bye"))
    line.server.close()
    with pytest.raises(Lost, match="57P01"):
        line.splice.pump(client=False)
    assert line.heard(line.client) == ROW + READY
    assert line.heard(line.client) is None


def test_so_it_is_if_the_loss_is_noticed_in_asking(line: Line) -> None:
    line.server.send(READY + error("FATAL", "57P01", "bye"))
    line.server.shutdown(socket.SHUT_RD)
    line.client.send(QUERY)
    with pytest.raises(Lost, match="57P01"):
        line.splice.pump(server=False)
    assert line.heard(line.client) == READY


def test_a_server_that_cannot_be_asked_and_says_nothing_is_lost(line: Line) -> None:
    line.server.shutdown(socket.SHUT_RD)
    line.client.send(QUERY)
    with pytest.raises(Lost, match="Broken pipe"):
        line.splice.pump()
    assert line.heard(line.client) is None


def test_a_server_that_hangs_up_is_lost(line: Line) -> None:
    line.server.close()
    with pytest.raises(Lost, match="without an error message"):
        line.splice.pump()
    assert line.heard(line.client) is None


def test_a_server_that_hangs_up_in_the_middle_of_a_message_is_lost(line: Line) -> None:
    line.client.send(QUERY)
    line.server.send(ROW[:-1])
    line.splice.pump()
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump()
    assert line.heard(line.client) == ROW[:-1]
    assert line.heard(line.client) is None, "not even an end"


def test_what_is_no_postgres_is_lost(line: Line) -> None:
    line.server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"D" + struct.pack("!I", 1))
    line.splice.pump()  # a message of type H, as far as anybody can tell
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump()


def test_a_client_that_says_goodbye_is_no_loss(line: Line) -> None:
    line.client.send(TERMINATE)
    line.splice.pump()
    assert line.splice.is_over
    assert line.heard(line.server) == TERMINATE


def test_a_goodbye_that_cannot_be_passed_on_yet_is_none_the_less(line: Line) -> None:
    line.splice.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    line.client.send(message("B", bytes(50_000)) + TERMINATE)
    line.splice.pump()
    assert line.splice.server_events & WRITE, "there was no room for all of it"
    heard = b""
    while not line.splice.is_over:
        heard += line.heard(line.server) or b""
        line.splice.pump()
    while piece := line.heard(line.server):
        heard += piece
    assert heard == message("B", bytes(50_000)) + TERMINATE


@pytest.mark.parametrize("unread", [TERMINATE, QUERY + TERMINATE, QUERY[:2], b""])
def test_what_a_client_had_said_before_its_server_was_gone_is_read_first(line: Line, unread: bytes) -> None:
    line.client.send(unread)
    line.server.close()
    if unread.endswith(TERMINATE):
        line.splice.pump(client=False)
        assert line.splice.is_over
    else:
        with pytest.raises(Lost):
            line.splice.pump(client=False)


def test_a_server_that_hangs_up_in_the_very_moment_of_a_goodbye_is_no_loss(line: Line) -> None:
    """What the client said first counts, in whatever order the two are noticed."""
    line.server.send(error("FATAL", "57P01", "bye"))
    line.client.send(TERMINATE)
    line.splice.pump()
    assert line.splice.is_over


def test_a_client_that_hangs_up_without_a_word_is_no_loss(line: Line) -> None:
    line.client.send(QUERY)
    line.client.close()
    line.splice.pump()
    line.splice.pump()
    assert line.splice.is_over
    assert line.heard(line.server) == QUERY


def test_an_answer_to_a_client_that_has_left_is_no_loss(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    line.client.close()
    line.server.send(ROW * 1000)
    line.splice.pump()
    assert line.splice.is_over


def test_a_client_that_does_not_read_holds_up_its_server_and_nobody_s_memory(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    row, sent = message("D", bytes(100_000)), 0
    try:
        while sent < 1000 * len(row):
            sent += line.server.send(row)
            line.splice.pump()
    except BlockingIOError:
        pass
    assert sent < 5_000_000, "what the kernel holds, and one piece"
    assert not line.splice.server_events & READ
    assert line.splice.client_events & WRITE
    line.now += 1000
    assert line.splice.waiting_since is None, "that is not the server's fault"
    received = b""
    while len(received) < sent:
        line.splice.pump()
        received += line.heard(line.client) or b""
    assert line.splice.server_events == READ
    assert line.splice.waiting_since == line.now, "from now on it is"


def test_a_server_that_does_not_read_holds_up_its_client(line: Line) -> None:
    sent = 0
    bind = message("B", bytes(100_000))
    try:
        while sent < 1000 * len(bind):
            sent += line.client.send(bind)
            line.splice.pump()
    except BlockingIOError:
        pass
    assert sent < 5_000_000
    assert not line.splice.client_events & READ
    assert line.splice.server_events & WRITE
    received = b""
    while len(received) < sent:
        line.splice.pump()
        received += line.heard(line.server) or b""
    assert line.splice.client_events == READ


def test_a_long_answer_lets_others_have_their_turn(line: Line) -> None:
    line.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
    line.splice.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
    line.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
    line.server.setblocking(True)
    line.server.settimeout(0.2)
    sent = line.server.send(message("D", bytes(3_000_000)))
    turns = 1
    line.splice.pump()
    while line.splice.has_more:
        line.splice.pump()
        turns += 1
    received = 0
    while (data := line.heard(line.client)) is not None:
        received += len(data)
        line.splice.pump()
    assert received == sent
    assert turns > 1 or sent < 1_000_000


@pytest.mark.parametrize(
    ("said", "answered", "owes"),
    [
        (b"", b"", False),
        (QUERY, b"", True),
        (QUERY, READY, False),
        (QUERY, ROW, True),
        (QUERY, ROW + READY, False),
        (QUERY, IN_TRANSACTION, False),
        (message("P", b"\0\0\0\0") + message("B", bytes(8)), b"", False),
        (message("P", b"\0\0\0\0") + SYNC, b"", True),
        (QUERY + QUERY, READY, True),
        (QUERY + QUERY, READY + READY, False),
        (b"", READY, False),
        (TERMINATE, b"", False),
    ],
)
def test_a_server_owes_an_answer_to_what_was_asked(line: Line, said: bytes, answered: bytes, owes: bool) -> None:
    line.now += 50
    line.client.send(said)
    line.splice.pump()
    line.now += 3
    line.server.send(answered)
    line.splice.pump()
    assert line.splice.waiting_since == ((line.now if answered else line.now - 3) if owes else None)


def test_a_server_owes_the_end_of_the_startup() -> None:
    line = Line()
    line.splice.pump()
    line.now += 7
    assert line.splice.waiting_since is not None
    line.close()


def test_a_server_that_wants_no_password_owes_nothing() -> None:
    line = Line(AUTHENTICATED + READY + ROW[:3])
    line.splice.pump()
    assert line.heard(line.client) == AUTHENTICATED + READY
    assert line.splice.waiting_since is None
    line.server.send(ROW[3:] + error("FATAL", "57P01", "bye"))
    with pytest.raises(Lost, match="57P01"):
        line.splice.pump()
    line.close()


def test_an_idle_client_can_be_made_to_dial_again(line: Line) -> None:
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump()
    assert line.splice.close_idle()
    with pytest.raises(BrokenPipeError):
        line.client.send(QUERY)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (QUERY, b""),
        (QUERY[:1], b""),
        (message("P", b"\0\0\0\0"), b""),
        (QUERY, ROW),
        (QUERY, IN_TRANSACTION),
        (QUERY, READY[:-1]),
        (QUERY + QUERY, READY),
    ],
)
def test_a_client_that_is_not_idle_cannot(line: Line, asked: bytes, answered: bytes) -> None:
    line.client.send(asked)
    line.splice.pump()
    line.server.send(answered)
    line.splice.pump()
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump()
    assert not line.splice.close_idle()


def test_what_a_client_asks_in_the_moment_of_the_loss_is_not_refused(line: Line) -> None:
    """It has been written: lib/pq would take its failure for the statement's."""
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump(client=False)
    line.splice._client_readable = False
    line.client.send(QUERY)
    assert not line.splice.close_idle()


def test_a_client_that_logs_in_cannot() -> None:
    line = Line()
    line.splice.pump()
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump()
    assert not line.splice.close_idle()
    line.close()
