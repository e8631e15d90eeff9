"""What another server is asked for one that was lost, and what its client hears."""

import socket
from collections.abc import Iterator

import pytest

from service.whatsapp.relay.splice import READ, Lost
from tests.fakes.postgres_messages import (
    IN_TRANSACTION,
    PARSED_AND_BOUND,
    QUERY,
    READY,
    ROW,
    SYNC,
    TERMINATE,
    as_lib_pq_asks,
    error,
    message,
)
from tests.fakes.spliced import Line

AS_LIB_PQ_ASKS = as_lib_pq_asks("SELECT 1")


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    line.log_in()
    yield line
    line.close()


def taken_over(line: Line) -> socket.socket:
    """Another server's end, behind a login."""
    server, end = socket.socketpair()
    for one in (server, end):
        one.setblocking(False)
    line.splice.attach(end)
    line.splice.pump(client=False)
    return server


def lose(line: Line) -> None:
    line.server.close()
    with pytest.raises(Lost):
        line.splice.pump()


def test_what_was_not_answered_is_asked_of_the_next_server(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    assert line.heard(line.server) == QUERY
    lose(line)
    assert line.splice.part()
    assert line.splice.needs_server
    assert (line.splice.client_events, line.splice.server_events) == (0, 0)
    server = taken_over(line)
    assert line.heard(server) == QUERY
    server.send(ROW + READY)
    line.splice.pump()
    assert line.heard(line.client) == ROW + READY
    line.client.send(QUERY)
    line.splice.pump()
    assert line.heard(server) == QUERY, "nothing is left of the question before"
    server.close()


def test_an_idle_client_gets_a_server_when_it_asks(line: Line) -> None:
    lose(line)
    assert line.splice.part()
    line.splice.pump()
    before = line.splice.needs_server, line.splice.client_events, line.splice.server_events
    assert before == (False, READ, 0)
    line.client.send(message("Q", b"BEGIN\0"))
    line.splice.pump()
    assert line.splice.needs_server, "nobody was asked before, so it may be anything"
    server = taken_over(line)
    assert line.heard(server) == message("Q", b"BEGIN\0")
    server.close()


def test_an_idle_client_may_leave(line: Line) -> None:
    lose(line)
    assert line.splice.part()
    line.client.send(TERMINATE)
    line.splice.pump()
    assert line.splice.is_over


def test_what_was_asked_in_the_moment_of_the_loss_is_asked_of_the_next(line: Line) -> None:
    line.server.close()
    line.client.send(QUERY)
    with pytest.raises(Lost):
        line.splice.pump(client=False)
    assert line.splice.part()
    assert line.splice.needs_server
    server = taken_over(line)
    assert line.heard(server) == QUERY
    server.close()


@pytest.mark.parametrize("said", [message("Q", b"COMMIT\0"), message("Q", b"INSERT INTO t VALUES (1)\0"), SYNC])
def test_what_might_be_done_twice_is_not_asked_again(line: Line, said: bytes) -> None:
    line.client.send(said)
    line.splice.pump()
    lose(line)
    assert not line.splice.part()


def test_a_transaction_ends_with_its_server(line: Line) -> None:
    line.client.send(message("Q", b"BEGIN\0"))
    line.splice.pump()
    line.server.send(IN_TRANSACTION)
    line.splice.pump()
    lose(line)
    assert not line.splice.part()


def test_an_answer_that_was_passed_on_in_part_is_not_begun_again(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    for _ in range(2):
        line.server.send(ROW * 3500)
        line.splice.pump()
    assert line.heard(line.client), "it is too long to be kept"
    lose(line)
    assert not line.splice.part()


def test_half_an_answer_is_kept_and_the_next_server_gives_all_of_it(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    line.server.send(ROW + ROW[:3])
    line.splice.pump()
    assert line.heard(line.client) is None
    lose(line)
    assert line.splice.part()
    server = taken_over(line)
    server.send(ROW[:3])
    line.splice.pump()
    server.send(ROW[3:] + READY)
    line.splice.pump()
    assert line.heard(line.client) == ROW + READY
    server.close()


def test_a_refusal_behind_what_every_answer_begins_with_is_none_of_the_client_s_business(line: Line) -> None:
    """So it looks when a statement came in the way of lib/pq: parsed and bound it is, and then its backend is ended."""
    line.client.send(AS_LIB_PQ_ASKS)
    line.splice.pump()
    line.server.send(PARSED_AND_BOUND + error("FATAL", "57P01", "bye"))
    with pytest.raises(Lost, match="57P01"):
        line.splice.pump()
    assert line.heard(line.client) is None
    assert line.splice.part()
    server = taken_over(line)
    assert line.heard(server) == AS_LIB_PQ_ASKS
    server.send(PARSED_AND_BOUND + ROW + READY)
    line.splice.pump()
    assert line.heard(line.client) == PARSED_AND_BOUND + ROW + READY
    server.close()


@pytest.mark.parametrize(
    "said",
    [
        message("Q", b"COPY t FROM STDIN\0"),
        message("P", b"\0\0\0\0") + message("H"),
        QUERY + message("P", b"\0\0\0\0") + message("H"),
    ],
)
def test_what_a_client_waits_for_in_the_middle_of_an_answer_is_not_kept(line: Line, said: bytes) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    line.client.send(said)
    line.splice.pump()
    for answer in (ROW + READY, message("G", b"\0\0\0")):
        line.server.send(answer)
        line.splice.pump()
        assert line.heard(line.client) == answer


def test_data_that_a_server_waits_for_is_asked_for(line: Line) -> None:
    line.client.send(message("Q", b"COPY t FROM STDIN\0"))
    line.splice.pump()
    line.server.send(message("G", b"\0\0\0"))
    line.splice.pump()
    assert line.heard(line.client) == message("G", b"\0\0\0")


def test_half_of_a_message_that_nobody_asked_for_cannot_be_taken_back(line: Line) -> None:
    """A notice, say. What the next server says would be taken for the other half."""
    notice = message("N", b"Mbye\0\0")
    line.server.send(notice[:7])
    line.splice.pump()
    assert line.heard(line.client) == notice[:7]
    line.client.send(QUERY)
    line.splice.pump()
    lose(line)
    assert not line.splice.part()


def test_a_long_answer_arrives_whole_though_its_server_is_lost_right_behind_it(line: Line) -> None:
    line.splice.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    line.client.send(QUERY)
    line.splice.pump()
    answer = message("D", bytes(40_000)) + READY
    line.server.send(answer + error("FATAL", "57P01", "bye"))
    line.splice.pump()
    line.server.close()
    heard = line.heard(line.client) or b""
    assert len(heard) < len(answer), "there was no room for all of it"
    while not line.is_lost():
        heard += line.heard(line.client) or b""
    heard += line.heard(line.client) or b""
    assert heard == answer
    assert line.splice.part()


def test_a_client_that_does_not_wait_for_answers_is_not_followed(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    line.client.send(QUERY)
    line.splice.pump()
    line.server.send(ROW + READY)
    line.splice.pump()
    lose(line)
    assert not line.splice.part()


def test_a_login_is_not_repeated() -> None:
    line = Line()
    line.splice.pump()
    line.client.send(message("p", b"pw\0"))
    line.splice.pump()
    lose(line)
    assert not line.splice.part()
    line.close()


@pytest.mark.parametrize(("refusal", "patience"), [(error("ERROR", "53100", "disk full") + READY, 600.0), (b"", 15.0)])
def test_a_question_that_every_server_refuses_is_given_up(line: Line, refusal: bytes, patience: float) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    server = line.server
    for seconds, goes_on, is_first in ((0.0, True, True), (patience - 1, True, False), (2.0, False, False)):
        line.now += seconds
        server.send(refusal)
        server.close()
        with pytest.raises(Lost, match="disk full" if refusal else "Postgres"):
            line.splice.pump()
        assert line.splice.part() is goes_on
        assert line.splice.was_refused is (bool(refusal) or not is_first), "a cut is mended at once, but only once"
        if goes_on:
            server = taken_over(line)
    assert line.heard(line.client) is None


def test_an_outage_is_no_refusal_however_long_it_is(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    line.server.send(error("FATAL", "57P01", "bye"))
    with pytest.raises(Lost):
        line.splice.pump()
    assert line.splice.part()
    line.now += 1000
    server = taken_over(line)
    server.send(error("FATAL", "57P01", "bye again"))
    with pytest.raises(Lost):
        line.splice.pump()
    assert line.splice.part()
    server.close()


def test_what_the_next_server_said_before_it_was_asked_is_the_beginning_of_what_it_says(line: Line) -> None:
    line.client.send(QUERY)
    line.splice.pump()
    lose(line)
    assert line.splice.part()
    server, end = socket.socketpair()
    end.setblocking(False)
    words = error("FATAL", "57P01", "bye")
    line.splice.attach(end, words[:7])
    server.send(words[7:])
    with pytest.raises(Lost, match="57P01"):
        line.splice.pump()
    assert line.heard(line.client) is None
    server.close()
