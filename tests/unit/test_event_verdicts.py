"""What the trial of the event log makes of a log, and of consumers' notes, that are not as they should be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.events import accounts
from tests.chaos.events.books import Books, Row
from tests.chaos.events.following import Note
from tests.chaos.events.notebook import Entry, Notebook


def log(*sequences: int) -> Books:
    return Books({"s": [Row("s", sequence, 0.0) for sequence in sequences]})


def test_sequences_without_a_gap_are_good() -> None:
    assert log(1, 2, 3).problems == []


@pytest.mark.parametrize("sequences", [(1, 3), (2, 3), (1, 1, 2)])
def test_a_gap_or_a_double_is_told(sequences: tuple[int, ...]) -> None:
    assert any("gap" in words for words in log(*sequences).problems)


@dataclass
class Consumer:
    notes: Sequence[Note]
    name: str = "somebody"
    session_ids: Sequence[str] = ()


def consumer(*places: tuple[int, str, int]) -> Consumer:
    """By what it was given: stream, session, sequence."""
    return Consumer([Note(stream, name, number, f"{name} {number}", 0.0) for stream, name, number in places])


def test_a_consumer_may_be_given_again_what_it_was_given_before_on_another_stream() -> None:
    assert accounts.wrong_with(consumer((0, "s", 1), (0, "s", 2), (1, "s", 2), (1, "s", 3)), {"s": 3}) == []


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([(0, "s", 1), (0, "s", 3)], "after 1"),
        ([(0, "s", 1), (1, "s", 3)], "lacks [2]"),
        ([(0, "s", 1), (0, "s", 1), (0, "s", 2), (0, "s", 3)], "after 1"),
        ([(0, "s", 1), (1, "s", 3), (2, "s", 2)], "out of order"),
        ([(0, "s", 1), (0, "s", 2)], "lacks [3]"),
        ([(0, "s", 1), (0, "s", 2), (0, "s", 3), (0, "t", 1)], "events of ['t']"),
    ],
    ids=[
        "skipped",
        "skipped between streams",
        "twice on one stream",
        "out of order",
        "the end missing",
        "a stranger's",
    ],
)
def test_what_a_consumer_must_not_have_is_told(places: list[tuple[int, str, int]], words: str) -> None:
    assert any(words in sentence for sentence in accounts.wrong_with(consumer(*places), {"s": 3}))


def test_events_that_are_not_the_same_for_two_consumers_are_told() -> None:
    one = consumer((0, "s", 1))
    assert accounts.differences(one, one) == []
    assert accounts.differences(one, Consumer([Note(0, "s", 1, "something else", 0.0)]))


def test_a_notebook_is_as_good_as_what_was_written_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    entries = [Entry("token-1", 1.0, Note(0, "s", 1, "f", 1.0)), Entry("token-2", 2.0, is_caught_up=True)]
    for entry in entries:
        Notebook(file).write(entry)
    with file.open("ab") as torn:
        torn.write(b'{"token": "token-3", "at"')
    assert list(Notebook(file).entries()) == entries
    Notebook(file).mend()
    Notebook(file).write(entries[0])
    assert list(Notebook(file).entries()) == [*entries, entries[0]]
