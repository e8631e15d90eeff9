"""The relay holds the statement that clears a message from the library's buffer until the message is committed."""

import socket
import threading
from collections.abc import Iterator

import pytest

from service.pgrelay import ack_gate
from service.pgrelay.ack_gate import MISSING_EVENT_CHECKS, AckGate
from service.pgrelay.framing import ClientMessages, Statement
from tests.eventually import eventually_in_thread
from tests.fakes.postgres_messages import PARSED_AND_BOUND, READY, TERMINATE, as_lib_pq_asks, message
from tests.fakes.relay_harness import Line
from tests.fakes.relayed import Relayed, at, is_silent, receive
from tests.fakes.scripted_postgres import ScriptedPostgres
from tests.unit.worker.test_relay_dialling import log_in, welcome_only

HASH = bytes(range(32))
LOOK_UP = as_lib_pq_asks(
    "\n\t\tSELECT plaintext, server_timestamp, insert_timestamp FROM whatsmeow_event_buffer"
    " WHERE our_jid = $1 AND ciphertext_hash = $2\n\t",
    HASH,
)
CLEAR = as_lib_pq_asks(
    "\n\t\tUPDATE whatsmeow_event_buffer SET plaintext = NULL WHERE our_jid = $1 AND ciphertext_hash = $2\n\t",
    HASH,
)
DELETE = as_lib_pq_asks("DELETE FROM whatsmeow_event_buffer WHERE insert_timestamp < $1")
CLEARED = PARSED_AND_BOUND + message("C", b"UPDATE 1\0") + READY


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    line.log_in()
    yield line
    line.close()


def ask(line: Line, statement: bytes) -> bytes | None:
    """Ask it, and return what reaches the server."""
    line.client.send(statement)
    line.splice.pump()
    return line.heard(line.server)


def test_the_library_s_statements_are_known_by_their_text() -> None:
    for statement, known in ((LOOK_UP, Statement.LOOK_UP), (CLEAR, Statement.CLEAR), (DELETE, None), (TERMINATE, None)):
        requests = ClientMessages()
        requests.feed(statement)
        assert requests.statement is known


@pytest.mark.parametrize("cut", range(1, len(CLEAR)))
def test_they_are_known_in_pieces_too(cut: int) -> None:
    requests, known = ClientMessages(), []
    for piece in (CLEAR[:cut], CLEAR[cut:]):
        requests.feed(piece)
        known.append(requests.statement)
    assert known.count(Statement.CLEAR) == 1


def test_a_message_is_not_cleared_before_its_event_has_been_handled(line: Line) -> None:
    assert ask(line, LOOK_UP) == LOOK_UP
    with line.gate.handling(is_message=True):
        assert ask(line, CLEAR) is None
        assert line.splice.interceptor.is_held
        assert line.splice.client_events == 0, "lib/pq waits, and the kernel keeps what it says"
    line.splice.pump(client=False, server=False)
    assert line.heard(line.server) == CLEAR
    assert not line.splice.interceptor.is_held


def test_nor_before_its_event_has_come(line: Line) -> None:
    ask(line, LOOK_UP)
    assert ask(line, CLEAR) is None
    with line.gate.handling(is_message=False):
        pass
    line.splice.pump(client=False, server=False)
    assert line.heard(line.server) is None, "that was a receipt"
    with line.gate.handling(is_message=True):
        pass
    line.splice.pump(client=False, server=False)
    assert line.heard(line.server) == CLEAR


def test_a_message_whose_event_is_handled_already_is_cleared_at_once(line: Line) -> None:
    ask(line, LOOK_UP)
    with line.gate.handling(is_message=True):
        pass
    assert ask(line, CLEAR) == CLEAR


def test_an_event_without_a_clearing_releases_nothing_that_comes_later(line: Line) -> None:
    """A bot's message, a newsletter's post; and before it a ciphertext that was processed already."""
    ask(line, LOOK_UP)
    with line.gate.handling(is_message=True):
        pass
    ask(line, LOOK_UP)
    assert ask(line, CLEAR) is None


def test_what_is_held_is_not_waited_for_from_the_server(line: Line) -> None:
    ask(line, LOOK_UP)
    line.server.send(READY)
    line.splice.pump()
    ask(line, CLEAR)
    line.now += 100
    assert line.splice.waiting_since is None
    with line.gate.handling(is_message=True):
        pass
    line.splice.pump()
    assert line.splice.waiting_since == line.now


def test_a_message_that_brings_no_event_is_cleared_after_a_bounded_wait() -> None:
    said: list[str] = []
    gate = AckGate(lambda _, words: said.append(words))
    gate.expect_event()
    assert not gate.may_clear()
    for _ in range(MISSING_EVENT_CHECKS - 1):
        gate.check()
    # Something else is handled: the library is slow, or the event is behind it.
    with gate.handling(is_message=False):
        for _ in range(2 * MISSING_EVENT_CHECKS):
            gate.check()
    for _ in range(MISSING_EVENT_CHECKS - 1):
        gate.check()
    assert not gate.may_clear()
    gate.check()
    assert gate.may_clear()
    assert said == ["a message was decrypted and brought no event; it is acknowledged"]


def test_who_waits_is_told_when_the_gate_opens_and_not_before() -> None:
    opened: list[None] = []
    gate = AckGate(lambda *_: None)
    gate.notify(lambda: opened.append(None))
    with gate.handling(is_message=True):
        pass
    assert opened == [], "nothing waited"
    gate.expect_event()
    gate.may_clear()
    with gate.handling(is_message=False):
        pass
    assert opened == []
    with gate.handling(is_message=True):
        pass
    assert opened == [None]


def test_an_event_is_logged_until_the_next_ciphertext_is_looked_up() -> None:
    gate = AckGate(lambda *_: None)
    gate.expect_event()
    assert not gate.is_logged
    with gate.handling(is_message=True):
        gate.log()
    logged = gate.is_logged
    gate.expect_event()
    assert (logged, gate.is_logged) == (True, False)


def test_a_gate_that_is_shut_lets_nothing_pass_any_more() -> None:
    gate = AckGate(lambda *_: None)
    opened: list[None] = []
    gate.notify(lambda: opened.append(None))
    gate.expect_event()
    gate.shut()
    for _ in range(2 * MISSING_EVENT_CHECKS):
        gate.check()
    assert not gate.may_clear()
    with gate.handling(is_message=True):
        pass
    assert not gate.may_clear()
    assert opened == []


def test_the_relay_serves_others_while_it_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_gate, "CHECK_INTERVAL_S", 0.05)
    handled = threading.Event()

    def answer(connection: socket.socket) -> None:
        welcome_only(connection)
        while asked := connection.recv(4096):
            connection.sendall(CLEARED if asked == CLEAR else READY)

    with ScriptedPostgres(answer) as server, Relayed(at(server.port)) as relay, log_in(relay) as client:
        client.sendall(LOOK_UP)
        assert receive(client, len(READY)) == READY

        def handle() -> None:
            with relay.gate.handling(is_message=True):
                handled.wait(10)

        handling = threading.Thread(target=handle)
        handling.start()
        eventually_in_thread(lambda: relay.gate._is_handling, "the event")
        client.sendall(CLEAR)
        assert is_silent(client)
        with log_in(relay) as other:
            other.sendall(DELETE)
            assert receive(other, len(READY)) == READY
        handled.set()
        assert receive(client, len(CLEARED)) == CLEARED
        handling.join()
        assert relay.losses == []


def test_a_server_that_is_lost_while_its_client_is_held_is_silence() -> None:
    with ScriptedPostgres(welcome_only) as server, Relayed(at(server.port)) as relay, log_in(relay) as client:
        relay.gate.expect_event()
        client.sendall(CLEAR)
        eventually_in_thread(lambda: any(proxy.interceptor.is_held for proxy in relay.relay._proxies), "it to be held")
        server.connections[0].close()
        assert relay.lost()
        assert is_silent(client)
