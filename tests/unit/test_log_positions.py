"""Places have the order of the log, and tokens can neither be made up nor altered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.log_positions import START, InvalidToken, LogPosition, ResumeTokenCodec

TOKENS = ResumeTokenCodec(b"k" * 32)
numbers = st.integers(0, 2**63 - 1)
places = st.builds(LogPosition, numbers, numbers)


@given(place=places)
def test_a_token_is_read_as_the_place_it_was_written_for(place: LogPosition) -> None:
    assert TOKENS.read(TOKENS.write(place)) == place


@given(place=places)
def test_a_token_needs_no_quoting_and_fits_into_the_request(place: LogPosition) -> None:
    token = TOKENS.write(place)
    assert token.isascii()
    assert token.replace("-", "a").replace("_", "a").isalnum()
    assert 0 < len(token) <= 200


@given(place=places, data=st.data())
def test_a_token_with_another_letter_anywhere_is_none(place: LogPosition, data: st.DataObject) -> None:
    token = TOKENS.write(place)
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCabc019-_").filter(lambda letter: letter != token[at]))
    with pytest.raises(InvalidToken):
        TOKENS.read(token[:at] + letter + token[at + 1 :])


@given(place=places)
def test_a_token_that_is_longer_shorter_or_padded_is_none(place: LogPosition) -> None:
    token = TOKENS.write(place)
    for altered in (
        f"{token}=",
        f"{token}==",
        f"{token}A",
        f"A{token}",
        token[:-1],
        token[1:],
        f"{token}\n",
        f" {token}",
    ):
        with pytest.raises(InvalidToken):
            TOKENS.read(altered)


@given(place=places)
def test_another_database_s_token_is_none(place: LogPosition) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read(ResumeTokenCodec(b"other" * 6).write(place))


@given(text=st.text(max_size=200))
def test_no_text_at_all_is_a_token_or_anything_but_not_a_token(text: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read(text)


def test_places_come_by_transaction_and_then_by_id() -> None:
    assert START < LogPosition(1) < LogPosition(1, 1) < LogPosition(1, 12) < LogPosition(2, 11)
