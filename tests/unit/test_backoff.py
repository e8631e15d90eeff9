"""The waits between attempts: short at first, then doubling, and never so long that nobody would notice the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.backoff import LONGEST_WAIT_S, backoff

JITTERS = st.floats(0, 1)
FAILURES = st.integers(2, 10**6)


@given(st.integers(0, 1), JITTERS, st.floats(1, 1000))
def test_the_first_failure_waits_for_a_tenth_of_a_second_at_most(failures: int, jitter: float, longest: float) -> None:
    assert 0 <= backoff(failures, jitter, longest) <= 0.1


def test_the_waits_double_up_to_a_minute() -> None:
    waits = [backoff(failures, 0.0) for failures in range(2, 12)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


@given(FAILURES, JITTERS)
def test_by_the_same_chance_another_failure_never_waits_for_a_shorter_time(failures: int, jitter: float) -> None:
    assert backoff(failures, jitter) <= backoff(failures + 1, jitter)


@given(FAILURES, JITTERS, st.floats(1, 1000))
def test_chance_takes_at_most_half_of_a_wait_and_adds_nothing(failures: int, jitter: float, longest: float) -> None:
    whole = backoff(failures, 0.0, longest)
    assert whole / 2 <= backoff(failures, jitter, longest) <= whole


@given(FAILURES, JITTERS, st.floats(1, 1000))
def test_no_wait_is_longer_than_the_longest_and_the_waits_come_to_it(
    failures: int, jitter: float, longest: float
) -> None:
    assert backoff(failures, jitter, longest) <= longest
    assert backoff(12, 0.0, longest) == pytest.approx(longest)


@given(st.integers(10**3, 10**400), JITTERS)
def test_however_many_failures_there_were_there_is_a_wait(failures: int, jitter: float) -> None:
    assert LONGEST_WAIT_S / 2 <= backoff(failures, jitter) <= LONGEST_WAIT_S
