"""Who gets which event, and who is too slow."""

from datetime import UTC, datetime

import pytest

from service.domain.caller import ANONYMOUS
from service.domain.log_positions import LogPosition
from service.domain.watch import EventFilter, LoggedEvent, SlowConsumerDetector

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVENT = LoggedEvent(LogPosition(5, 7), "shop", 1, NOW, NOW, "RECEIPT", b"", "ada", {"team": "red", "tier": "1"})
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (EventFilter(ANONYMOUS), True),
        (EventFilter(ANONYMOUS, session_ids=frozenset({"shop", "other"})), True),
        (EventFilter(ANONYMOUS, session_ids=frozenset({"other"})), False),
        (EventFilter(ANONYMOUS, user_id="ada"), True),
        (EventFilter(ANONYMOUS, user_id="bob"), False),
        (EventFilter(ANONYMOUS, labels={"team": "red"}), True),
        (EventFilter(ANONYMOUS, labels={"team": "red", "tier": "2"}), False),
        (EventFilter(ANONYMOUS, labels={"zone": ""}), False),
        (EventFilter(ANONYMOUS, types=frozenset({"RECEIPT", "PAIRING"})), True),
        (EventFilter(ANONYMOUS, types=frozenset({"PAIRING"})), False),
        (EventFilter(ANONYMOUS, frozenset({"shop"}), "ada", {"team": "red"}, frozenset({"RECEIPT"})), True),
        (EventFilter(ANONYMOUS, frozenset({"shop"}), "ada", {"team": "red"}, frozenset({"PAIRING"})), False),
    ],
)
def test_an_event_passes_if_it_passes_all_of_the_filter(wanted: EventFilter, passes: bool) -> None:
    assert wanted.passes(EVENT) is passes


def verdicts(*looks: tuple[float, float, int]) -> list[bool]:
    """What is said of a consumer at these looks: (now, late, behind)."""
    pace = SlowConsumerDetector(PATIENCE)
    return [pace.is_too_slow(*look) for look in looks]


def test_who_is_late_for_a_minute_and_falls_back_is_too_slow() -> None:
    assert verdicts((0, 61, 100), (30, 80, 200), (59, 90, 300), (61, 100, 301)) == [False, False, False, True]


def test_who_is_late_and_comes_nearer_is_not_however_late_he_is() -> None:
    week = 7 * 86_400.0
    looks = [(60.0 * minute, week, 1_000_000 - minute) for minute in range(100)]
    assert not any(verdicts(*looks))


def test_who_came_nearer_and_falls_back_later_is_compared_with_a_minute_ago() -> None:
    assert verdicts((0, 90, 500), (60, 90, 300), (120, 95, 400)) == [False, False, True]


def test_what_comes_late_to_everybody_makes_nobody_too_slow() -> None:
    """An open transaction has held back two minutes of the log, after an hour in which nothing came."""
    burst = [(3600.0 + number / 1000, 120.0 - number, 1000 - number) for number in range(121)]
    again = [(7200.0 + number / 1000, 120.0 - number, 9000 - number) for number in range(121)]
    assert not any(verdicts((0, 0, 1), *burst, *again))
