"""Logging in in the library's place, where a real Postgres does not ask in that way; SCRAM: tests/integration."""

import hashlib
import socket
import struct

import pytest

from service.whatsapp.relay.framing import NotPostgres, ServerRefused
from service.whatsapp.relay.login import CannotLogIn, log_in
from service.whatsapp.relay.upstream import Opened
from tests.fakes.postgres_messages import AUTHENTICATED, PASSWORD_WANTED, READY, error, message, startup

STARTUP = startup(user="zap", database="zap")


def wanted(number: int, more: bytes = b"") -> bytes:
    return message("R", struct.pack("!I", number) + more)


def logged_in(said: bytes, answer: bytes = b"") -> bytes:
    """What the server hears. It says all of it without waiting, as no server does; the order is the same."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(answer)
        here.setblocking(False)
        log_in(Opened(here, said), STARTUP, "secret", 0.3)
        there.setblocking(False)
        try:
            return there.recv(10_000)
        except BlockingIOError:
            return b""
        finally:
            assert here.gettimeout() == 0.0, "as it was given"


def test_somebody_who_is_trusted_says_nothing() -> None:
    assert logged_in(AUTHENTICATED + message("S", b"a\0b\0") + message("K", bytes(8)) + READY) == b""


def test_a_password_in_the_clear() -> None:
    assert logged_in(PASSWORD_WANTED, AUTHENTICATED + READY) == message("p", b"secret\0")


def test_a_password_by_md5() -> None:
    inner = hashlib.md5(b"secretzap", usedforsecurity=False).hexdigest()
    digest = hashlib.md5(inner.encode() + b"salt", usedforsecurity=False).hexdigest()
    assert logged_in(wanted(5, b"salt"), AUTHENTICATED + READY) == message("p", f"md5{digest}\0".encode())


@pytest.mark.parametrize(
    ("said", "answer", "fault"),
    [
        (wanted(7), b"", CannotLogIn),  # GSS
        (wanted(10, b"SCRAM-SHA-256-PLUS\0\0"), b"", CannotLogIn),
        (wanted(10, b"SCRAM-SHA-256\0\0"), wanted(11, b"r=someone else's,s=c2FsdA==,i=4096"), CannotLogIn),
        (wanted(12, b"v=x"), b"", NotPostgres),
        (PASSWORD_WANTED, error("FATAL", "28P01", "no"), ServerRefused),
        (PASSWORD_WANTED, b"", TimeoutError),
        (b"R\0\0\0\1", b"", NotPostgres),
    ],
)
def test_who_cannot_log_in_hears_why(said: bytes, answer: bytes, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        logged_in(said, answer)


def test_a_server_that_hangs_up() -> None:
    here, there = socket.socketpair()
    there.close()
    with here, pytest.raises(ConnectionError):
        log_in(Opened(here, AUTHENTICATED), STARTUP, "secret", 0.3)


def test_what_a_server_says_behind_its_welcome_is_left_to_whoever_goes_on() -> None:
    """Half a notice, say: what follows would be taken for the beginning of a message."""
    here, there = socket.socketpair()
    with here, there:
        opened = log_in(Opened(here, AUTHENTICATED + READY + b"N\0\0"), STARTUP, "secret", 0.3)
        assert (opened.connection, opened.said) == (here, b"N\0\0")
