"""How long a session's process stays, off WhatsApp, for what the library waits for; with what it stays for scripted."""

import socket
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from service.domain.disconnects import Cause
from service.whatsapp import leaving as leaving_module
from service.whatsapp.client import Client
from service.whatsapp.leaving import Leaving
from service.whatsapp.relay.relay import Awaited, Relay
from service.whatsapp.reports import Reports
from service.whatsapp.session import Session
from service.whatsapp.unconfirmed import Unconfirmed
from service.whatsapp.watchdog import Watchdog
from tests.fakes.relayed import at
from zap.worker.v1 import frames_pb2

ANSWER, CONNECTION, NOTHING = Awaited.ANSWER, Awaited.CONNECTION, Awaited.NOTHING


class Stage:
    """The relay, the library, the other connection and the node."""

    quiet_since = 0.0

    def __init__(self, *awaited: Awaited) -> None:
        """What the library waits for: at first, and after each time in which it did not fall quiet."""
        self._awaited = [*awaited]
        self.limits: list[float] = []
        """Of the times for which it was waited for."""
        self.told: list[str | None] = []
        self.asked = 0

    @property
    def awaits(self) -> Awaited:
        return self._awaited[0]

    def disconnect(self) -> None:
        """Close the connection to WhatsApp."""

    def drain(self, quiet: float, limit: float, since: Callable[[], float]) -> bool:
        """Whether there is nothing to stay for any more."""
        self.limits.append(limit)
        self._awaited.pop(0)
        return not self._awaited

    def send(self, frame: frames_pb2.Frame) -> None:
        self.told.append(frame.WhichOneof("body"))

    def start(self) -> None:
        """Others are asked about the database from now on."""
        self.asked += 1

    def distrust_silence(self) -> None:
        """They were answered."""

    def say(self, level: str, logger: str, words: str) -> None:
        """To the log."""


def leave(monkeypatch: pytest.MonkeyPatch, *awaited: Awaited, let_in: bool = True) -> Stage:
    stage = Stage(*awaited)
    monkeypatch.setattr(leaving_module, "DatabaseProbe", lambda *_: stage)
    leaving = Leaving(
        frames_pb2.Start(),
        cast(Watchdog, None),
        Unconfirmed(),
        cast(Reports, stage),
        cast(Relay, stage),
        cast(Client, stage),
        stage.say,
    )
    leaving.may_receive = let_in
    leaving.disconnect_without_database()
    return stage


def test_it_stays_until_what_it_stays_for_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(leave(monkeypatch, CONNECTION, CONNECTION, ANSWER, ANSWER, CONNECTION).limits) == 5


def test_it_goes_when_nothing_will_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits for an answer that nobody owes any more."""
    assert len(leave(monkeypatch, ANSWER, ANSWER, NOTHING, NOTHING, NOTHING).limits) == 2


@pytest.mark.parametrize(("awaited", "looks"), [(ANSWER, True), (CONNECTION, False), (NOTHING, False)])
def test_whether_others_are_answered_is_asked_while_an_answer_is_owed(
    monkeypatch: pytest.MonkeyPatch, awaited: Awaited, looks: bool
) -> None:
    assert (leave(monkeypatch, awaited).asked > 0) is looks


def test_who_waits_for_a_silent_server_is_drained_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is busy for as long as that likes; what else it waits for is done soon."""
    assert leave(monkeypatch, ANSWER).limits == [1.0]
    assert leave(monkeypatch, CONNECTION).limits == [3.0]


@pytest.mark.parametrize("first", [ANSWER, NOTHING])
def test_its_node_hears_once_that_it_is_off(monkeypatch: pytest.MonkeyPatch, first: Awaited) -> None:
    """Even if nothing was asked yet when the database was lost: it would count as connected as long as it stays."""
    assert leave(monkeypatch, first, CONNECTION, CONNECTION).told == ["disconnected"]


def test_it_says_nothing_of_that_if_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leave(monkeypatch, NOTHING).told == []


def test_one_that_has_not_begun_has_nothing_to_stay_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leave(monkeypatch, CONNECTION, let_in=False).limits == []


@pytest.fixture
def session() -> Iterator[Session]:
    here, there = socket.socketpair()
    start = frames_pb2.Start(session_id="one", database_url="postgres:///db?a=b", database=at(1))
    with here, there:
        session = Session(here, start, cast(Watchdog, None))
        session._relay.start()
        yield session
        session._relay.close()


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
