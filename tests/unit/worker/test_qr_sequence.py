"""How long codes are good, and what the library's one word about the end of a pairing means."""

from datetime import timedelta

import pytest

from service.domain.disconnect_policy import Cause
from service.worker.session.qr_sequence import QrSequence, cause_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("codes", "seconds", "cause"),
    [
        (0, 5, Cause.PAIRING_INTERRUPTED),
        (1, 5, Cause.PAIRING_INTERRUPTED),
        (1, 60, Cause.CODES_USED_UP),
        (2, 19.5, Cause.CODES_USED_UP),
        (6, 20, Cause.CODES_USED_UP),
        (6, 10, Cause.PAIRING_INTERRUPTED),
    ],
)
def test_a_timeout_is_one_only_when_the_last_code_is_over(codes: int, seconds: float, cause: Cause) -> None:
    clock = Clock()
    shown = QrSequence(clock)
    for position in range(codes):
        assert shown.show(f"https://wa.me/x#2@ref{position},a,b,secret,6")[0] == position + 1
    clock.now += seconds
    assert cause_of("timeout", shown) is cause


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ("error", Cause.SCAN_REJECTED),
        ("passkey-request", Cause.PASSKEY_REQUIRED),
        ("err-client-outdated", Cause.CLIENT_OUTDATED),
        ("err-unexpected-state", Cause.PAIRING_REFUSED),
        ("success", None),
        ("a new word", None),
    ],
)
def test_the_other_words_are_what_they_say(status: str, cause: Cause | None) -> None:
    assert cause_of(status, QrSequence()) is cause


def test_the_first_code_is_good_for_a_minute_and_so_is_one_whose_secret_was_renewed() -> None:
    clock = Clock()
    shown = QrSequence(clock)
    minute, short = timedelta(seconds=60), timedelta(seconds=20)
    assert shown.show("https://wa.me/x#2@one,a,b,secret,6") == (1, minute)
    clock.now += 50
    assert shown.show("https://wa.me/x#2@one,a,b,another secret,6") == (1, minute)
    clock.now += 50
    assert not shown.used_up
    assert shown.show("https://wa.me/x#2@two,a,b,another secret,6") == (2, short)
    clock.now += 20
    assert shown.used_up
