"""The signs from which the end of a pairing is read: one word of the library's, and lines of its log."""

import pytest

from service.domain.disconnects import Cause
from service.whatsapp.login_status import CodesShown, cause_of
from service.whatsapp.passkeys import is_request


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
    shown = CodesShown(clock)
    for position in range(codes):
        assert shown.show() == position + 1
    clock.now += seconds
    assert cause_of("timeout", shown) is cause


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ("error", Cause.SCAN_REJECTED),
        ("err-client-outdated", Cause.CLIENT_OUTDATED),
        ("err-unexpected-state", Cause.PAIRING_REFUSED),
        ("success", None),
        ("a new word", None),
    ],
)
def test_the_other_words_are_what_they_say(status: str, cause: Cause | None) -> None:
    assert cause_of(status, CodesShown()) is cause


@pytest.mark.parametrize(
    ("logger", "line", "expected"),
    [
        ("Client/Recv", '<notification from="s.whatsapp.net" id="1" type="passkey_prologue_request"/>', True),
        ("Client/Recv", '<notification id="1"><passkey_request_options>{}</passkey_request_options>', True),
        ("Client", "Failed to parse passkey notification: x", True),
        ("Client/Recv", '<message id="1" type="text"><enc>passkey</enc></message>', False),
        ("Client/Recv", '<notification type="devices"/>', False),
        ("Client/Send", '<iq type="result"/>', False),
        ("Client", "Frame websocket connected", False),
    ],
)
def test_a_request_for_a_passkey_is_seen_in_the_log(logger: str, line: str, expected: bool) -> None:
    assert is_request(logger, line) is expected
