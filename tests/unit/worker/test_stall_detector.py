import socket
from collections.abc import Iterator

import pytest

from service.worker.process.frame_writer import FrameWriter
from service.worker.process.session_end import SessionEnd
from service.worker.process.stall_detector import StallDetector
from service.worker.session.session import ClientSession
from tests.fakes.relayed import at
from zap.worker.v1 import frames_pb2


class Parts:
    """What a session is doing, check by check."""

    def __init__(self, connection: socket.socket) -> None:
        start = frames_pb2.Start(session_id="one", database=at(1))
        self._session = ClientSession(start, FrameWriter(connection), SessionEnd(lambda _: None))
        vars(self._session)["_client"] = self
        self.current_event = 0
        self.is_asking_store = False

    def checks(self, count: int) -> str:
        """So many checks; what the last one found."""
        found = ""
        for _ in range(count):
            found = self._session.find_stall()
        return found


@pytest.fixture
def parts() -> Iterator[Parts]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Parts(theirs)


def test_what_makes_no_progress_for_some_checks_has_stalled() -> None:
    detector = StallDetector("it is stuck")
    for _ in range(20):
        detector.progressed()
        assert not detector.check()
    assert [detector.check() for _ in range(5)] == ["", "", "", "it is stuck", "it is stuck"]
    detector.progressed()
    assert not detector.check()


def test_an_event_in_hand_for_some_checks_is_stuck_until_it_is_done(parts: Parts) -> None:
    assert not parts.checks(20)
    parts.current_event = 7
    assert not parts.checks(4)
    assert "an event" in parts.checks(1)
    parts.current_event = 0
    assert not parts.checks(1)


def test_events_that_follow_each_other_are_not_stuck(parts: Parts) -> None:
    for event in range(1, 20):
        parts.current_event = event
        assert not parts.checks(2)


def test_an_event_that_waits_for_the_database_is_the_database_s_affair(parts: Parts) -> None:
    parts.current_event, parts.is_asking_store = 7, True
    assert not parts.checks(20)
    # The database answered, and still the event does not come to its end.
    parts.is_asking_store = False
    assert not parts.checks(3)
    assert parts.checks(1)
