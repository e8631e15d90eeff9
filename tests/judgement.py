"""What became of messages that were written: each must be there once, and in the order of its conversation."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.traffic import Kind, Written

_SHOWN = 5
"""Examples in a sentence."""


class Message(Protocol):
    """A message of the event log, or one that a consumer was given."""

    @property
    def message_id(self) -> str:
        """WhatsApp's id of it."""

    @property
    def text(self) -> str:
        """What was written."""


@dataclass(frozen=True)
class Undelivered:
    """A message that a session lacks."""

    session_id: str
    message: Written

    def __str__(self) -> str:
        return f"{self.session_id} lacks {self.message.text!r} ({self.message.message_id})"


@dataclass
class Judgement:
    """The figures, and what is behind them. A message to a group counts once for each session."""

    expected: int = 0
    lost: list[Undelivered] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    kinds: Counter[Kind] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """Sentences about what must not be."""
        found = {"lost": [str(one) for one in self.lost], "twice": self.twice, "out of order": self.disordered}
        return [
            f"{len(those)} messages {what}: {'; '.join(those[:_SHOWN])}{' …' if len(those) > _SHOWN else ''}"
            for what, those in found.items()
            if those
        ]

    def __str__(self) -> str:
        return (
            f"{self.expected} messages in, {len(self.lost)} lost, {len(self.twice)} twice,"
            f" {len(self.disordered)} out of order"
        )


def judge(written: Sequence[Written], received: Mapping[str, Sequence[Message]]) -> Judgement:
    """Compare what was written with what each session has, in its order."""
    judgement = Judgement()
    texts: dict[str, dict[str, list[str]]] = {}
    for session_id, those in received.items():
        of_session = texts.setdefault(session_id, {})
        for one in those:
            of_session.setdefault(one.message_id, []).append(one.text)
    for message in written:
        for session_id in message.readers:
            judgement.expected += 1
            judgement.kinds[message.kind] += 1
            found = texts.get(session_id, {}).get(message.message_id, [])
            if message.text not in found:
                judgement.lost.append(Undelivered(session_id, message))
            if len(found) > 1:
                judgement.twice.append(f"{session_id} has {message.message_id} {len(found)} times, as {found}")
    for session_id, those in received.items():
        judgement.disordered += _disordered(session_id, written, those)
    return judgement


def _disordered(session_id: str, written: Sequence[Written], received: Sequence[Message]) -> list[str]:
    """Messages that stand behind one of the same conversation that was written later; repetitions do not count."""
    places = {one.message_id: number for number, one in enumerate(written) if one.has_order}
    conversations: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for message_id in dict.fromkeys(one.message_id for one in received):
        if (place := places.get(message_id)) is not None:
            conversations[written[place].conversation].append(place)
    return [
        f"{session_id} has {written[place].text!r} behind {written[before].text!r}"
        for order in conversations.values()
        for place, before in zip(order, itertools.accumulate(order, max, initial=-1), strict=False)
        if place < before
    ]
