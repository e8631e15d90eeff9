"""The relay's part in a take-over: what becomes of it when a take-over fails, and of those who wait for one."""

import socket
import time

import pytest

from tests.fakes.postgres_messages import QUERY, READY, ROW, startup
from tests.fakes.relayed import Relayed, at, eventually, is_silent, receive
from tests.fakes.scripted_postgres import WELCOME, ScriptedPostgres, hang_up, keep_silent, read_startup, welcome
from tests.unit.whatsapp.test_relay_question import as_lib_pq_asks

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
            assert not relay.relay.is_mending
            with log_in(relay), log_in(relay) as other:
                other.sendall(QUERY)
                assert receive(other, len(ANSWER)) == ANSWER, "everybody else is served as before"
        assert len(relay.losses) == 1
