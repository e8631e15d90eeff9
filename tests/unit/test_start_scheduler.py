"""The bucket and its lanes under a clock of the test's own: how fast, who is next, and who cannot starve whom."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from service.domain.start_scheduler import PERMIT_TTL_S, Lane, PermitRequest, StartScheduler


class Clock:
    """Time goes on only when the test says so; every turn that is granted is used at once."""

    def __init__(self, rate: float) -> None:
        self.now = 1000.0
        self.pace = StartScheduler(rate, self.now)
        self.starts: list[tuple[float, PermitRequest]] = []

    def grant(self) -> list[PermitRequest]:
        granted = []
        while (waiting := self.pace.grant(self.now)) is not None:
            assert self.pace.use(waiting.permits[-1], self.now)
            granted.append(waiting)
            self.starts.append((self.now, waiting))
        return granted

    def pass_by(self, seconds: float) -> None:
        """As a timer would: from one moment at which something can be granted to the next."""
        until = self.now + seconds
        while (wait := self.pace.wait(self.now)) is not None and self.now + wait < until:
            self.now += max(wait, 0.001)
            self.grant()
        self.now = until
        self.grant()

    def wait_of(self, waiting: PermitRequest) -> float:
        started = self.now
        while waiting not in [start for _, start in self.starts]:
            self.pass_by(0.05)
            assert self.now - started < 1000
        return self.now - started


def test_a_seconds_worth_at_once_and_then_the_rate() -> None:
    clock = Clock(10)
    for _ in range(100):
        clock.pace.join(Lane.CLAIM)
    assert len(clock.grant()) == 10
    clock.pass_by(9.05)
    assert len(clock.starts) == 100
    assert all(later - earlier == pytest.approx(0.1, abs=0.01) for earlier, later in pairwise(times(clock)[9:]))


@pytest.mark.parametrize("rate", [0.1, 0.5, 1, 2.5, 7, 10, 333])
def test_no_window_has_more_starts_than_a_seconds_worth_and_the_rate(rate: float) -> None:
    chance = random.Random(f"rate {rate}")
    clock = Clock(rate)
    for _ in range(300):
        for _ in range(chance.choice((0, 0, 1, 2, 5))):
            clock.pace.join(chance.choice(list(Lane)), chance.choice((1, 1, 3)), chance.random())
        clock.pass_by(chance.choice((0.0, 0.01, 0.3, 1.0)) * 5 / rate)
    moments = times(clock)
    most = max(1.0, rate)
    for first, start in enumerate(moments):
        for last in range(first, min(first + 100, len(moments))):
            assert last - first + 1 <= most + (moments[last] - start) * rate + 1e-3
    assert len(moments) > 100


def test_one_that_falls_alone_finds_a_turn_at_once() -> None:
    clock = Clock(10)
    clock.pass_by(60)
    waiting = clock.pace.join(Lane.RESTART)
    assert clock.grant() == [waiting]


@pytest.mark.parametrize(
    ("lane", "permits"), [(Lane.PAIRING, 3), (Lane.RESTART, 3), (Lane.CLAIM, 3), (Lane.BACKOFF, 9)]
)
def test_the_first_in_a_lane_does_not_wait_for_all_that_wait_in_the_others(lane: Lane, permits: int) -> None:
    clock = Clock(10)
    for _ in range(500):
        for other in set(Lane) - {lane}:
            clock.pace.join(other)
    for _ in range(20):
        clock.pass_by(0.73)
        assert clock.wait_of(clock.pace.join(lane)) <= (permits + 1) / 10 + 0.05


def test_those_that_fail_take_few_permits_from_those_that_do_not() -> None:
    clock = Clock(10)
    for _ in range(500):
        clock.pace.join(Lane.CLAIM)
        clock.pace.join(Lane.BACKOFF)
    clock.pass_by(39.05)
    assert Counter(start.lane for _, start in clock.starts) == {Lane.CLAIM: 300, Lane.BACKOFF: 100}


def test_one_that_falls_before_all_others_that_fell_is_started_in_their_midst() -> None:
    """Most recently active first: who was active a moment ago does not wait for 300 that nobody talked to."""
    clock = Clock(10)
    idle = [clock.pace.join(Lane.RESTART, active_at=at) for at in range(300)]
    clock.pass_by(5)
    busy = clock.pace.join(Lane.RESTART, active_at=1000)
    assert clock.wait_of(busy) <= 0.15
    clock.pass_by(30)
    order = [start for _, start in clock.starts if start is not busy]
    assert order == list(reversed(idle))


def test_lanes_share_and_nobody_starves() -> None:
    clock = Clock(10)
    for _ in range(1000):
        for lane in Lane:
            clock.pace.join(lane)
    clock.pass_by(99.05)
    shares = Counter(start.lane for _, start in clock.starts)
    assert shares == {Lane.PAIRING: 300, Lane.RESTART: 300, Lane.CLAIM: 300, Lane.BACKOFF: 100}


def test_what_one_lane_does_not_need_is_the_others() -> None:
    clock = Clock(10)
    for _ in range(100):
        clock.pace.join(Lane.BACKOFF)
    clock.pass_by(9.1)
    assert len(clock.starts) == 100


@pytest.mark.parametrize("lane", [Lane.PAIRING, Lane.CLAIM, Lane.BACKOFF])
def test_in_other_lanes_who_came_first_is_first(lane: Lane) -> None:
    clock = Clock(1)
    joined = [clock.pace.join(lane, active_at=active_at) for active_at in (5.0, 9.0, 1.0)]
    clock.pass_by(3)
    assert [start for _, start in clock.starts] == joined


def test_turns_that_are_held_count_until_they_are_used() -> None:
    """A database that is away for a moment holds up those that have turns: not more than a second's worth may have."""
    pace = StartScheduler(10, 0.0)
    for _ in range(100):
        pace.join(Lane.RESTART)
    held = grant_all(pace, 0.0)
    assert len(held) == 10
    assert grant_all(pace, 4.0) == []
    assert pace.wait(4.0) == pytest.approx(PERMIT_TTL_S - 4.0)
    assert all(pace.use(turn, 4.0) for turn in held)
    assert len(grant_all(pace, 5.0)) == 10


def test_a_turn_that_is_held_for_too_long_is_void_and_keeps_nobody_from_starting() -> None:
    pace = StartScheduler(2, 0.0)
    for _ in range(100):
        pace.join(Lane.RESTART)
    held = grant_all(pace, 0.0)
    assert len(held) == 2
    assert grant_all(pace, PERMIT_TTL_S - 0.01) == []
    assert len(grant_all(pace, PERMIT_TTL_S + 1)) == 2
    assert not any(pace.use(turn, PERMIT_TTL_S + 1) for turn in held)
    assert not any(pace.give_back(turn, PERMIT_TTL_S + 1) for turn in held), "that would make turns out of nothing"
    assert grant_all(pace, PERMIT_TTL_S + 1) == []


def test_a_turn_is_given_back_once_and_to_somebody_else() -> None:
    pace = StartScheduler(1, 0.0)
    first, second = pace.join(Lane.RESTART), pace.join(Lane.RESTART)
    assert pace.grant(0.0) is first
    assert pace.give_back(first.permits[0], 0.1)
    assert not pace.give_back(first.permits[0], 0.1)
    assert pace.grant(0.1) is second
    assert pace.use(second.permits[0], 0.1)
    assert not pace.give_back(second.permits[0], 0.1), "it was used"
    pace.join(Lane.RESTART)
    assert pace.grant(0.2) is None


def test_who_leaves_is_not_waited_for() -> None:
    pace = StartScheduler(1, 0.0)
    first, second = pace.join(Lane.RESTART, active_at=2), pace.join(Lane.RESTART, active_at=1)
    pace.leave(first)
    pace.leave(first)
    assert pace.grant(0.0) is second
    assert pace.wait(0.0) is None


def test_a_place_for_several_turns_gets_them_one_by_one() -> None:
    clock = Clock(10)
    several = clock.pace.join(Lane.CLAIM, wants=4)
    clock.pace.join(Lane.CLAIM)
    clock.grant()
    assert (len(several.permits), len(clock.starts)) == (4, 5)


def times(clock: Clock) -> list[float]:
    return [at for at, _ in clock.starts]


def grant_all(pace: StartScheduler, now: float) -> list[int]:
    granted = []
    while (waiting := pace.grant(now)) is not None:
        granted.append(waiting.permits[-1])
    return granted
