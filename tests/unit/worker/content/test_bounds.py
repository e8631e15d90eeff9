import time

import pytest

from service.worker.inbound.content.limits import ITEMS, Bounds, moment, past_moment, readable


def test_a_text_is_cut_by_characters_and_that_is_said() -> None:
    bounds = Bounds()
    assert (bounds.text("äöü", 3), bounds.has_cut) == ("äöü", False)
    assert (bounds.text("äöüß", 3), bounds.has_cut) == ("äöü", True)


def test_all_texts_together_have_a_bound_in_bytes_and_no_character_is_cut_in_two() -> None:
    bounds = Bounds(total=5)
    assert (bounds.text("ää"), bounds.has_cut) == ("ää", False)
    assert (bounds.text("ä"), bounds.has_cut) == ("", True)
    assert bounds.text("a") == ""


def test_bytes_are_whole_or_not_there() -> None:
    bounds = Bounds(total=10)
    assert (bounds.data(b"12345", 5), bounds.has_cut) == (b"12345", False)
    assert (bounds.data(b"123456", 5), bounds.has_cut) == (b"", True)
    assert bounds.data(b"123456", 6) == b""


def test_a_list_has_a_bound() -> None:
    bounds = Bounds()
    assert (len(bounds.items(range(ITEMS))), bounds.has_cut) == (ITEMS, False)
    assert (len(bounds.items(range(ITEMS + 1))), bounds.has_cut) == (ITEMS, True)


@pytest.mark.parametrize(
    ("value", "text"), [("as it is\0", "as it is\0"), (b"ab\xff", "ab\ufffd"), (b"\xed\xa0\x80", "\ufffd" * 3)]
)
def test_what_is_no_text_becomes_one(value: str | bytes, text: str) -> None:
    assert readable(value) == text


def test_a_time_is_told_to_the_millisecond() -> None:
    stamp = moment(1_700_000_000, 123)
    assert stamp is not None
    assert (stamp.seconds, stamp.nanos) == (1_700_000_000, 123_000_000)


@pytest.mark.parametrize("seconds", [0, -1, 253_402_300_800, 2**63 - 1])
def test_a_time_outside_the_calendar_is_none(seconds: int) -> None:
    assert moment(seconds) is None


def test_a_time_to_come_is_none_for_what_has_happened() -> None:
    now = int(time.time())
    assert past_moment(now) == moment(now)
    # Clocks differ.
    assert past_moment(now + 3_600) == moment(now + 3_600)
    for absurd in (0, -1, -62_135_596_800, now + 100_000, 2**62):
        assert past_moment(absurd) is None
