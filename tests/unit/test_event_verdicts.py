"""What the trial of the event log makes of a log, and of consumers' notes, that are not as they should be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.events import accounts
from tests.chaos.events.books import Books, Row
from tests.chaos.events.falls import Falls, Start
from tests.chaos.events.following import Note
from tests.chaos.events.notebook import Entry, Notebook


def row(sequence: int, text: str, epoch: int = 1, message_id: str = "") -> Row:
    return Row("s", sequence, epoch, message_id or f"id of {text}", text, 0.0)


def judged(rows: Sequence[Row], *fallen: int) -> list[str]:
    """Of a log, if a, b, c and d were written, and the processes of these epochs fell."""
    falls = Falls()
    falls.add((Start("s", epoch) for epoch in fallen), "kill -9")
    return Books({"s": rows}).judge({"s": ["a", "b", "c", "d"]}, falls)


WHOLE = [row(1, "a"), row(2, "b"), row(3, "c", 2), row(4, "d", 2)]


def test_a_whole_log_is_good() -> None:
    assert judged(WHOLE) == []


@pytest.mark.parametrize("fallen", [(1,), (1, 2)])
def test_a_fall_may_cost_a_message_where_it_was(fallen: tuple[int, ...]) -> None:
    assert judged([row(1, "a"), row(2, "c", 2), row(3, "d", 2)], *fallen) == []


@pytest.mark.parametrize("fallen", [(), (2,), (7,)])
def test_no_message_is_lost_where_nothing_fell(fallen: tuple[int, ...]) -> None:
    assert any("lacks 1 messages" in words for words in judged([row(1, "a"), row(2, "c", 2), row(3, "d", 2)], *fallen))


def test_a_fall_costs_no_more_than_one() -> None:
    assert any("lacks 2 messages" in words for words in judged([row(1, "a"), row(2, "d", 2)], 1))


@pytest.mark.parametrize(("fallen", "sentences"), [((1,), 1), ((2,), 0), ((1, 2), 0)])
def test_the_last_message_is_lost_by_the_last_epoch_s_fall_or_a_later_one(
    fallen: tuple[int, ...], sentences: int
) -> None:
    assert len(judged(WHOLE[:3], *fallen)) == sentences


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*WHOLE[:3], row(5, "d", 2)], "gap"),
        ([*WHOLE, row(5, "d again", 2, "id of d")], "2 times"),
        ([row(1, "b"), row(2, "a"), *WHOLE[2:]], "behind"),
    ],
    ids=["a gap", "a repetition", "another order"],
)
def test_what_a_log_must_not_have_is_told(rows: list[Row], words: str) -> None:
    assert [words in sentence for sentence in judged(rows)] == [True]


LATE = [row(1, "a"), row(2, "c", 2), row(3, "d", 2), row(4, "b")]


@pytest.mark.parametrize(("late", "sentences"), [((), 1), ((1,), 0), ((2,), 1)])
def test_late_is_only_what_a_process_had_told_a_frozen_node_before_it_was_killed(
    late: tuple[int, ...], sentences: int
) -> None:
    falls = Falls(late={Start("s", epoch) for epoch in late})
    texts = ["a", "b", "c", "d"]
    assert len(Books({"s": LATE}).judge({"s": texts}, falls)) == sentences
    assert any("behind" in words for words in Books({"s": [*LATE[1:], row(5, "a")]}).judge({"s": texts}, falls))


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
