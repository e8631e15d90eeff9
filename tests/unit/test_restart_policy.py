"""The failures of one session in a row: how long each makes it wait, and in which lane."""

import pytest

from service.domain import observations as seen
from service.domain.backoff import LONGEST_WAIT_S, STEADY_S
from service.domain.disconnect_policy import Cause
from service.domain.restart_policy import MOST_SHORT_LOGINS, RestartPolicy
from service.domain.session import ProcessStarted
from service.domain.start_scheduler import Lane

TTL = 10.0
LOGIN = seen.Connected("49:1@s.whatsapp.net", "", "Anna")
DIED = seen.Ended(Cause.PROCESS_DIED)


@pytest.fixture
def policy() -> RestartPolicy:
    return RestartPolicy(TTL)


def end(policy: RestartPolicy, cause: Cause = Cause.PROCESS_DIED, *, now: float = 0.0) -> float:
    """Record an end and return the wait after it, without jitter."""
    ended = seen.Ended(cause)
    policy.record(ended, now)
    return policy.wait_after(ended, 0.0)


def test_each_failure_doubles_the_wait_up_to_the_cap(policy: RestartPolicy) -> None:
    assert [end(policy) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_only_an_end_is_a_failure(policy: RestartPolicy) -> None:
    for cause in (ProcessStarted(), LOGIN, seen.Disconnected(), LOGIN):
        policy.record(cause, 0.0)
    assert end(policy) == 0


@pytest.mark.parametrize(("lasted", "wait"), [(STEADY_S, 0), (STEADY_S - 1, 4)])
def test_only_a_connection_that_lasts_resets_the_count(policy: RestartPolicy, lasted: float, wait: float) -> None:
    for _ in range(3):
        end(policy)
    policy.record(LOGIN, 100.0)
    policy.record(LOGIN, 100.0 + lasted - 1)
    assert end(policy, now=100.0 + lasted) == wait


def test_a_cause_limits_its_own_wait(policy: RestartPolicy) -> None:
    assert [end(policy, Cause.DATABASE_LOST) for _ in range(9)] == [0, *[1] * 8]


def test_a_session_that_logs_in_and_ends_at_once_waits_longer_after_a_burst(policy: RestartPolicy) -> None:
    waits = []
    for _ in range(MOST_SHORT_LOGINS + 1):
        policy.record(LOGIN, 0.0)
        waits.append(end(policy, Cause.DATABASE_LOST, now=1.0))
    assert waits == [0, *[1] * (MOST_SHORT_LOGINS - 1), 16]
    assert end(policy, Cause.DATABASE_LOST) == 1, "this one did not log in"


def test_a_replaced_session_waits_for_a_ttl(policy: RestartPolicy) -> None:
    assert [end(policy, Cause.STREAM_REPLACED) for _ in range(2)] == [TTL, TTL]
    assert end(policy) == 2


def test_the_attempts_of_earlier_owners_count(policy: RestartPolicy) -> None:
    policy.inherit(4)
    assert end(policy) == 4
    policy.inherit(1)
    assert end(policy) == 8, "fewer attempts reset nothing"


def test_a_reset_forgets_the_failures(policy: RestartPolicy) -> None:
    for _ in range(5):
        end(policy)
    policy.reset()
    assert policy.lane(is_pairing=False) is Lane.RESTART
    assert end(policy) == 0


def test_jitter_shortens_the_wait(policy: RestartPolicy) -> None:
    for _ in range(4):
        policy.record(DIED, 0.0)
    assert policy.wait_after(DIED, 1.0) == 2


@pytest.mark.parametrize(
    ("failures", "is_pairing", "lane"),
    [
        (0, True, Lane.PAIRING),
        (1, True, Lane.PAIRING),
        (2, True, Lane.BACKOFF),
        (0, False, Lane.RESTART),
        (1, False, Lane.RESTART),
        (2, False, Lane.BACKOFF),
    ],
)
def test_the_lane_separates_repeated_failures_from_the_first(
    policy: RestartPolicy, failures: int, is_pairing: bool, lane: Lane
) -> None:
    for _ in range(failures):
        end(policy)
    assert policy.lane(is_pairing=is_pairing) is lane
