"""The rate limiter of a session's sends."""

import pytest

from service.messaging.send_rate import FIRST_PAUSE_S, LONGEST_PAUSE_S, SendLimit, SendRate

NOW = 1000.0


def test_without_a_rate_nothing_waits() -> None:
    rate = SendRate(SendLimit())
    for _ in range(1000):
        assert rate.delay(NOW) == 0
        rate.take(NOW)


def test_a_burst_leaves_at_once_and_then_the_rate_holds() -> None:
    rate, now = SendRate(SendLimit(rate=2.0, burst=5)), NOW
    sent: list[float] = []
    while len(sent) < 15:
        now += rate.delay(now)
        rate.take(now)
        sent.append(now - NOW)
    assert sent[:5] == [0] * 5
    assert sent[5:] == pytest.approx([0.5 * number for number in range(1, 11)])


def test_a_rest_saves_no_more_than_a_burst() -> None:
    rate = SendRate(SendLimit(rate=2.0, burst=5))
    rate.take(NOW)
    later = NOW + 3600
    for _ in range(5):
        assert rate.delay(later) == 0
        rate.take(later)
    assert rate.delay(later) == pytest.approx(0.5)


def test_a_refusal_pauses_the_session_and_repeated_ones_for_longer() -> None:
    rate, now = SendRate(SendLimit()), NOW
    pauses = []
    for _ in range(10):
        pauses.append(rate.refused(now))
        assert rate.delay(now) == pauses[-1]
        now += pauses[-1]
        assert rate.delay(now) == 0
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    rate.succeeded()
    assert rate.refused(now) == FIRST_PAUSE_S
