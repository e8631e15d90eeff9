"""Two minutes of a process's life in no time: what it heard, what it was answered, and what followed when."""

from collections.abc import Callable, Iterator

import pytest

from service.worker.session.connection_monitor import (
    CONNECT_TIMEOUT_S,
    DISAGREEMENT_GRACE_S,
    ConnectionMonitor,
    Verdict,
)

LOST, BACK, LEAVE = Verdict.LOST, Verdict.BACK, Verdict.LEAVE


class Life:
    """A patience, a clock that is set, and the verdicts with their seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.patience = ConnectionMonitor(lambda: self.now)

    def pass_by(self, seconds: float, answer: Callable[[float], bool | None] = lambda _: None) -> Iterator[str]:
        """A verdict and an answer each second (None: no answer); yields what followed."""
        began = self.now
        while self.now < began + seconds:
            self.now += 1.0
            if (is_up := answer(self.now - began)) is not None:
                self.patience.answered(is_up=is_up)
            if (verdict := self.patience.verdict()) is not Verdict.NOTHING:
                yield f"{verdict.value} after {self.now - began:g}"

    def after(self, seconds: float, answer: Callable[[float], bool | None] = lambda _: None) -> list[str]:
        return list(self.pass_by(seconds, answer))


def yes(_: float) -> bool:
    return True


def no(_: float) -> bool:
    return False


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def connected(life: Life) -> Life:
    life.patience.connecting()
    life.patience.connected()
    assert life.after(5, yes) == []
    return life


def test_a_connection_that_is_answered_for_lasts(connected: Life) -> None:
    assert connected.after(600, yes) == []
    assert connected.patience.is_up


@pytest.mark.parametrize("answer", [no, lambda _: None])
def test_one_that_is_not_answered_for_is_lost_and_then_left(connected: Life, answer: Callable[[float], bool]) -> None:
    assert connected.after(200, answer) == [
        f"LOST after {DISAGREEMENT_GRACE_S + 1:g}",
        f"LEAVE after {DISAGREEMENT_GRACE_S + 1 + CONNECT_TIMEOUT_S:g}",
    ]
    assert not connected.patience.is_up


def test_a_moment_s_contradiction_is_no_news(connected: Life) -> None:
    assert connected.after(300, lambda second: second % 4 == 0) == []


def test_an_answer_lifts_the_doubt_that_an_answer_made(connected: Life) -> None:
    assert connected.after(8, no) == [f"LOST after {DISAGREEMENT_GRACE_S + 1:g}"]
    assert connected.after(200, yes) == [f"BACK after {DISAGREEMENT_GRACE_S + 1:g}"]
    assert connected.patience.is_up


def test_an_answer_that_does_not_last_lifts_nothing(connected: Life) -> None:
    connected.after(8, no)
    assert "BACK" not in "".join(connected.after(50, lambda second: second % 3 != 0))


def test_no_answer_lifts_what_an_event_said(connected: Life) -> None:
    # What whatsmeow remembers of having logged in outlives the connection (seen: a login that is held after a drop).
    connected.patience.disconnected()
    assert connected.after(200, yes) == [f"LEAVE after {CONNECT_TIMEOUT_S:g}"]


def test_an_event_counts_for_more_than_the_answers_before_it(connected: Life) -> None:
    connected.after(8, no)
    connected.patience.disconnected()
    assert connected.after(30, yes) == []


def test_the_event_that_it_is_connected_is_believed(connected: Life) -> None:
    connected.patience.disconnected()
    assert connected.after(50, yes) == []
    connected.patience.connected()
    assert connected.patience.is_up
    assert connected.after(200, yes) == []


def test_reconnections_that_fail_again_and_again_do_not_begin_anew(connected: Life) -> None:
    connected.patience.disconnected()
    left: list[str] = []
    for _ in range(40):
        left += connected.after(2, no)
        connected.patience.disconnected()
    assert len(left) == 1
    assert connected.now == 1005 + 80


def test_a_connect_that_neither_succeeds_nor_fails_is_left_once(life: Life) -> None:
    assert life.after(300) == [], "before it connects, a process may wait for its database"
    life.patience.connecting()
    assert life.after(300) == [f"LEAVE after {CONNECT_TIMEOUT_S:g}"]


def test_what_comes_in_shows_that_a_login_is_on_its_way(life: Life) -> None:
    life.patience.connecting()
    for _ in range(20):
        life.patience.heard()
        assert life.after(30) == []
    assert life.after(60) == [f"LEAVE after {CONNECT_TIMEOUT_S - 30:g}"]


def test_a_code_waits_for_a_person_and_a_scan_for_a_login(life: Life) -> None:
    life.patience.connecting()
    life.after(50)
    for seconds in (60, 20, 20, 20, 20, 20):
        life.patience.showing_code(seconds)
        assert life.after(seconds) == []
    life.patience.scanned()
    assert life.after(100) == [f"LEAVE after {CONNECT_TIMEOUT_S:g}"]


def test_a_code_that_is_over_and_never_followed_is_no_excuse(life: Life) -> None:
    life.patience.connecting()
    life.patience.showing_code(20)
    assert life.after(200) == [f"LEAVE after {20 + CONNECT_TIMEOUT_S:g}"]


def test_time_in_which_the_process_did_not_run_does_not_count(connected: Life) -> None:
    connected.now += 9
    assert connected.after(3, yes) == []
    connected.patience.disconnected()
    connected.after(50, no)
    connected.now += 9
    assert connected.after(9, no) == []
    assert connected.after(10, no) == ["LEAVE after 2"]
