"""What is made of messages that are lost, doubled or out of order."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.judgement import Judgement, judge
from tests.traffic import Kind, Written


@dataclass(frozen=True)
class Message:
    message_id: str
    text: str


def written(text: str, kind: Kind = Kind.TEXT, writer: str = "friend", readers: Sequence[str] = ("s",)) -> Written:
    return Written(f"id of {text}", text, kind, writer, "phone", tuple(readers), 0.0)


def received(*texts: str) -> list[Message]:
    return [Message(f"id of {text}", text) for text in texts]


WRITTEN = [written("a"), written("b"), written("c", writer="stranger"), written("d")]


def figures(judgement: Judgement) -> tuple[int, int, int]:
    return len(judgement.lost), len(judgement.twice), len(judgement.disordered)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("abcd", (0, 0, 0)),
        ("cabd", (0, 0, 0)),
        ("abd", (1, 0, 0)),
        ("abcda", (0, 1, 0)),
        ("bacd", (0, 0, 1)),
        ("dabc", (0, 0, 2)),
        ("", (4, 0, 0)),
        ("abcdz", (0, 0, 0)),
    ],
    ids=["whole", "two conversations", "lost", "twice", "swapped", "late", "nothing", "a message of before"],
)
def test_each_message_is_there_once_and_in_the_order_of_its_conversation(
    texts: str, expected: tuple[int, int, int]
) -> None:
    judgement = judge(WRITTEN, {"s": received(*texts)})
    assert figures(judgement) == expected
    assert judgement.expected == 4
    assert bool(judgement.problems) == any(expected)


def test_a_message_that_was_sent_again_may_be_late_and_not_missing() -> None:
    some = [written("a"), written("b", Kind.GARBLED), written("c")]
    assert figures(judge(some, {"s": received("a", "c", "b")})) == (0, 0, 0)
    assert figures(judge(some, {"s": received("a", "c")})) == (1, 0, 0)
    assert figures(judge(some, {"s": received("a", "b", "c", "b")})) == (0, 1, 0)


def test_a_message_to_a_group_is_for_each_session() -> None:
    some = [written("a", Kind.GROUP_TEXT, readers=("s", "t"))]
    judgement = judge(some, {"s": received("a")})
    assert (judgement.expected, [one.session_id for one in judgement.lost]) == (2, ["t"])


def test_another_text_under_the_same_id_is_another_message() -> None:
    assert figures(judge(WRITTEN[:1], {"s": [Message("id of a", "x")]})) == (1, 0, 0)
    assert figures(judge(WRITTEN[:1], {"s": [Message("id of a", "a"), Message("id of a", "x")]})) == (0, 1, 0)
