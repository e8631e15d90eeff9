"""The relay's part in a take-over: what becomes of it when a take-over fails, and of those who wait for one."""

import socket
import threading
import time

import pytest

from service.whatsapp.relay.relay import Awaited
from service.whatsapp.relay.replacements import Replacements
from tests.fakes.postgres_messages import (
    IN_TRANSACTION,
    PASSWORD_WANTED,
    QUERY,
    READY,
    ROW,
    as_lib_pq_asks,
    error,
    message,
    startup,
)
from tests.fakes.relayed import PATIENCE, Relayed, at, eventually, is_silent, receive
from tests.fakes.scripted_postgres import WELCOME, ScriptedPostgres, hang_up, keep_silent, read_startup, welcome

STARTUP = startup(user="me", database="db")
HELLO = b"".join(WELCOME)
ANSWER = ROW + READY


def welcome_and_leave(connection: socket.socket) -> None:
    """Let somebody in, and hang up a moment later."""
    read_startup(connection)
    connection.sendall(HELLO)
    time.sleep(0.1)
    hang_up(connection)


def welcome_and_answer(connection: socket.socket) -> None:
    """Let somebody in, and give one answer."""
    read_startup(connection)
    connection.sendall(HELLO)
    connection.recv(65536)
    connection.sendall(ANSWER)
    keep_silent(connection)


def log_in(relay: Relayed) -> socket.socket:
    connection = relay.connect()
    connection.sendall(STARTUP)
    assert receive(connection, len(HELLO)) == HELLO
    return connection


def test_what_nobody_else_can_be_asked_in_an_outage_is_silence_and_no_more() -> None:
    """It is asked of a server that is gone already: that one is dead, not the relay."""
    with ScriptedPostgres(welcome_and_leave, welcome, welcome_and_answer) as server, Relayed(at(server.port)) as relay:
        with log_in(relay) as unlucky:
            relay.lost()
            unlucky.sendall(as_lib_pq_asks("SELECT 1", name="prepared there"))
            assert is_silent(unlucky)
            assert relay.relay.awaits is Awaited.NOTHING
            with log_in(relay), log_in(relay) as other:
                other.sendall(QUERY)
                assert receive(other, len(ANSWER)) == ANSWER, "everybody else is served as before"
        assert len(relay.losses) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        PASSWORD_WANTED + message("R"),
        message("R", b"\0\0\0\x0a" + b"\xff\xff\0\0"),
        message("R", b"\0\0\0\x0aSCRAM-SHA-256\0\0") + message("R", b"\0\0\0\x0b\xff\xff"),
    ],
)
def test_a_server_that_talks_nonsense_in_the_login_keeps_nobody_waiting(nonsense: bytes) -> None:
    """Nobody would ever end a process that waits for a connection that nobody makes any more."""

    def talk_nonsense(connection: socket.socket) -> None:
        read_startup(connection)
        connection.sendall(nonsense)
        keep_silent(connection)

    with (
        ScriptedPostgres(welcome_and_leave, talk_nonsense) as server,
        Relayed(at(server.port)) as relay,
        log_in(relay) as client,
    ):
        relay.lost()
        client.sendall(QUERY)
        eventually(lambda: len(server.connections) == 2, "a login")
        eventually(lambda: relay.relay.awaits is Awaited.NOTHING, "the end of it")
        assert is_silent(client)
        assert "cannot be replaced" in str(relay.lines)


def test_a_relay_that_fails_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with ScriptedPostgres(welcome_and_leave) as server, Relayed(at(server.port)) as relay, log_in(relay) as client:
        monkeypatch.setattr(Replacements, "make", fail)
        relay.relay._awaits = Awaited.CONNECTION
        client.sendall(QUERY)
        eventually(lambda: not relay.relay._thread.is_alive(), "its end")
        assert relay.relay.awaits is Awaited.NOTHING
        assert "can't start new thread" in str(relay.lines)


def test_a_name_that_cannot_be_one_is_a_trouble_like_others() -> None:
    database = at(1)
    database.servers[0].host = f"{'x' * 64}.invalid"
    with Relayed(database) as relay, relay.connect() as client:
        client.sendall(STARTUP)
        eventually(lambda: "label" in relay.relay.trouble, "words")


def test_a_server_in_a_transaction_that_cannot_go_on_is_let_go_of() -> None:
    """It would keep its place in a pooler for as long as this process stays."""
    is_left = threading.Event()

    def fail_in_transaction(connection: socket.socket) -> None:
        read_startup(connection)
        connection.sendall(HELLO)
        for answer in (IN_TRANSACTION, error("ERROR", "40P01", "deadlock")):
            connection.recv(65536)
            connection.sendall(answer)
        keep_silent(connection)
        is_left.set()

    with ScriptedPostgres(fail_in_transaction) as server, Relayed(at(server.port)) as relay, log_in(relay) as client:
        client.sendall(message("Q", b"BEGIN\0"))
        assert receive(client, len(IN_TRANSACTION)) == IN_TRANSACTION
        client.sendall(QUERY)
        relay.lost()
        assert is_left.wait(PATIENCE)
        assert is_silent(client)


def test_what_is_not_answered_while_others_are_is_asked_again() -> None:
    """A network that has forgotten a connection says nothing of it, and never will."""
    with (
        ScriptedPostgres(welcome, welcome_and_answer) as server,
        Relayed(at(server.port), 0.2) as relay,
        log_in(relay) as client,
    ):
        client.sendall(QUERY)
        assert "has not answered" in relay.lost()
        assert is_silent(client, 1.5), "it may be answered yet, as long as nobody knows better"
        relay.relay.distrust_silence()
        assert receive(client, len(ANSWER)) == ANSWER
        eventually(lambda: relay.relay.awaits is Awaited.NOTHING, "the end of it")


def test_what_is_not_answered_twice_is_given_up() -> None:
    """It is the question, not the connection: who holds a lock over it has not finished."""
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port), 0.2) as relay, log_in(relay) as client:
        client.sendall(QUERY)
        relay.lost()
        relay.relay.distrust_silence()
        eventually(lambda: relay.relay.awaits is Awaited.NOTHING, "the end of it")
        assert is_silent(client)
        assert len(server.connections) == 2


def test_what_may_not_be_asked_twice_is_given_up_at_once() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port), 0.2) as relay, log_in(relay) as client:
        client.sendall(message("Q", b"SELECT nextval('numbers')\0"))
        relay.lost()
        relay.relay.distrust_silence()
        eventually(lambda: relay.relay.awaits is Awaited.NOTHING, "the end of it")
        assert is_silent(client)
        assert len(server.connections) == 1
