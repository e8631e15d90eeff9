"""How late consumers were: while Redis was away, altogether, and after they were killed."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from tests.chaos.events.blows import Absence
from tests.chaos.events.books import Books
from tests.chaos.events.consumers import Follower, Mortal

Place = tuple[str, int]
"""A session and a sequence."""


def all_of(found: Books, follower: Follower, mortal: Mortal, absences: Sequence[Absence]) -> Iterator[str]:
    """Sentences. Nothing is judged: what is late is not lost."""
    appended = {(row.session_id, row.sequence): row.appended_at for rows in found.rows.values() for row in rows}
    came: dict[Place, float] = {}
    for note in follower.notes:
        came.setdefault((note.session_id, note.sequence), note.at)
    if absences:
        yield from _without_redis(appended, came, absences)
    delays = [at - appended[place] for place, at in came.items() if place in appended]
    if len(delays) > 1:
        p99 = statistics.quantiles(delays, n=100, method="inclusive")[-1]
        yield (
            f"from the log to {follower.name} {statistics.median(delays) * 1000:.0f} ms at p50, {p99:.1f} s at p99,"
            f" {max(delays):.1f} s at most"
        )
    if took := mortal.catching_up():
        yield (
            f"{mortal.name} had caught up {statistics.median(took):.1f} s after its start at p50, {max(took):.1f} at"
            f" most, in {len(mortal.starts)} lives"
        )


def _without_redis(
    appended: Mapping[Place, float], came: Mapping[Place, float], absences: Sequence[Absence]
) -> Iterator[str]:
    """The longest absence by itself, and all of them."""
    longest = max(absences, key=lambda absence: absence.ended - absence.began)
    yield f"Redis away for {longest.ended - longest.began:.0f} s: {_meanwhile(appended, came, [longest])}"
    if len(absences) > 1:
        yield f"{len(absences)} times in all: {_meanwhile(appended, came, absences)}"


def _meanwhile(appended: Mapping[Place, float], came: Mapping[Place, float], absences: Sequence[Absence]) -> str:
    late = [
        came.get(place, float("inf")) - absence.ended
        for absence in absences
        for place, at in appended.items()
        if absence.began <= at < absence.ended
    ]
    in_time = sum(seconds < 0 for seconds in late)
    return f"{in_time} of {len(late)} events came meanwhile, the last one {max([0.0, *late]):.2f} s after its return"
