"""What consumers noted, compared with the log: everything, in order, and nothing else."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from tests.chaos.events.following import Note

_LOOK_S = 0.1


class Noted(Protocol):
    """A consumer whose notes are judged."""

    name: str

    @property
    def notes(self) -> Sequence[Note]:
        """All that it was given, in the order in which it came."""

    @property
    def session_ids(self) -> Sequence[str]:
        """Those that it asked for; none: all."""


def reached(consumer: Noted, ends: Mapping[str, int]) -> bool:
    """Whether it has the last event of each of its sessions."""
    last: defaultdict[str, int] = defaultdict(int)
    for note in consumer.notes:
        last[note.session_id] = max(last[note.session_id], note.sequence)
    return all(last[name] >= end for name, end in ends.items() if name in (consumer.session_ids or ends))


async def until_reached(consumers: Sequence[Noted], ends: Mapping[str, int], timeout: float) -> None:
    """Wait until all have the last events, or the time is over: then `wrong_with` says what they lack."""
    deadline = time.monotonic() + timeout
    while not all(reached(consumer, ends) for consumer in consumers) and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)


def wrong_with(consumer: Noted, ends: Mapping[str, int]) -> list[str]:
    """Sentences about what must not be, if its sessions' sequences are 1 to these."""
    expected = {name: end for name, end in ends.items() if name in (consumer.session_ids or ends)}
    found = [*_jumps(consumer.notes), *_changes(consumer.notes)]
    firsts = _firsts(consumer.notes)
    for name, end in expected.items():
        numbers = [number for number in firsts.get(name, []) if number <= end]
        if numbers != list(range(1, end + 1)):
            missing = sorted(set(range(1, end + 1)) - set(numbers))
            found.append(f"of the {end} events of {name} it lacks {missing[:5]}, or has them out of order")
    if strangers := set(firsts) - set(expected):
        found.append(f"it has events of {sorted(strangers)}")
    return [f"{consumer.name}: {sentence}" for sentence in found]


def differences(one: Noted, other: Noted) -> list[str]:
    """What both have and is not the same."""
    seen = {(note.session_id, note.sequence): note.fingerprint for note in one.notes}
    return [
        f"{other.name} has another {note.session_id} {note.sequence} than {one.name}"
        for note in other.notes
        if seen.get((note.session_id, note.sequence), note.fingerprint) != note.fingerprint
    ]


def repetitions(notes: Sequence[Note]) -> int:
    """How many were seen before."""
    return len(notes) - len({(note.session_id, note.sequence) for note in notes})


def _firsts(notes: Iterable[Note]) -> Mapping[str, list[int]]:
    """Per session the sequences in the order in which they came, repetitions dropped."""
    found: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for note in notes:
        found[note.session_id][note.sequence] = None
    return {name: list(numbers) for name, numbers in found.items()}


def _jumps(notes: Iterable[Note]) -> list[str]:
    """Within a stream a session's sequences follow one on the other."""
    last: dict[tuple[int, str], int] = {}
    sentences = []
    for note in notes:
        before = last.get((note.stream, note.session_id), note.sequence - 1)
        if note.sequence != before + 1:
            sentences.append(f"stream {note.stream} has {note.session_id} {note.sequence} after {before}")
        last[note.stream, note.session_id] = note.sequence
    return sentences


def _changes(notes: Iterable[Note]) -> list[str]:
    """What comes again is the same."""
    seen: dict[tuple[str, int], str] = {}
    return [
        f"{note.session_id} {note.sequence} came again as another event"
        for note in notes
        if seen.setdefault((note.session_id, note.sequence), note.fingerprint) != note.fingerprint
    ]
