"""How long a session's process stays, off WhatsApp, for what the library waits for; with what it stays for scripted."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from service.domain.disconnects import Cause
from service.whatsapp import session as session_module
from service.whatsapp.session import Session
from service.whatsapp.watchdog import Watchdog
from tests.fakes.relayed import at
from zap.worker.v1 import frames_pb2

#: What the relay says at each look: a connection is being made, an answer is owed.
MENDING, OWED = (True, False), (False, True)


class Stage:
    """The relay, the library, the other connection and the node."""

    quiet_since = 0.0

    def __init__(self, *looks: tuple[bool, bool]) -> None:
        self.looks = [*looks]
        self.seen: list[tuple[bool, bool]] = []
        self.told: list[str | None] = []
        self.is_mending = self.is_owed_an_answer = False

    def drain(self, quiet: float, limit: float, since: Callable[[], float]) -> bool:
        """Whether there is nothing to stay for any more."""
        if not self.looks:
            return True
        self.seen.append(self.looks.pop(0))
        self.is_mending, self.is_owed_an_answer = self.seen[-1]
        return False

    def send(self, frame: frames_pb2.Frame) -> None:
        self.told.append(frame.WhichOneof("body"))

    def start(self) -> None:
        """Others are asked about the database from now on."""

    def has_answered(self, wait: float) -> bool:
        return True


@pytest.fixture
def session() -> Iterator[Session]:
    here, there = socket.socketpair()
    start = frames_pb2.Start(session_id="one", database_url="postgres:///db?a=b", database=at(1))
    with here, there:
        session = Session(here, start, cast(Watchdog, None))
        session._relay.start()
        yield session
        session._relay.close()


def outlast(session: Session, monkeypatch: pytest.MonkeyPatch, *looks: tuple[bool, bool]) -> Stage:
    stage = Stage(*looks)
    relay = session._relay
    monkeypatch.setattr(session_module, "DatabaseProbe", lambda *_: stage)
    for part in ("_relay", "_client", "_reports"):
        monkeypatch.setattr(session, part, stage)
    session._has_left = True
    session._outlast_loss()
    monkeypatch.setattr(session, "_relay", relay)
    return stage


def test_it_ends_when_what_it_stays_for_is_there(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outlast(session, monkeypatch, MENDING, MENDING, OWED).looks == []


def test_what_is_answered_to_others_it_waits_for_a_moment_longer(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outlast(session, monkeypatch, OWED, OWED, OWED).seen == [OWED, OWED]


def test_that_moment_begins_anew_behind_a_take_over(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server has just been asked what the first one never answered."""
    assert outlast(session, monkeypatch, OWED, MENDING, OWED, OWED).seen == [OWED, MENDING, OWED, OWED]


def test_its_node_hears_once_that_it_is_off(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nothing was asked yet when the database was lost: it would count as connected as long as it stays."""
    assert outlast(session, monkeypatch, MENDING, MENDING, MENDING).told == ["disconnected"]


def test_it_says_nothing_of_that_if_it_ends_at_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    assert outlast(session, monkeypatch).told == []
    assert time.monotonic() - began < 1


def test_one_that_whatsapp_has_not_let_in_ends_at_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library would log in when the database is back, and acknowledge what a process that leaves does not tell."""
    ended: list[tuple[str, str]] = []
    left: list[Cause] = []
    monkeypatch.setattr(session._ending, "end_at_once", lambda said: ended.append((said.cause, said.detail)))
    monkeypatch.setattr(session, "_leave", lambda cause, *_: left.append(cause))
    session._on_database_lost("gone")
    assert (ended, left) == ([("DATABASE_LOST", "gone")], [])
    session._was_let_in = True
    session._on_database_lost("gone")
    assert left == [Cause.DATABASE_LOST]
