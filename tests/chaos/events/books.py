"""What the log has, and what of it must not be."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.events.falls import Falls
from tests.e2e.sql import Sql
from zap.v1 import event_pb2

_LOG = "SELECT session_id, sequence, epoch, type, payload, appended_at FROM zap.event ORDER BY session_id, sequence"


@dataclass(frozen=True)
class Row:
    """One event of the log; `appended_at` in Unix seconds. Message id and text are empty for what is no message."""

    session_id: str
    sequence: int
    epoch: int
    message_id: str
    text: str
    appended_at: float


@dataclass(frozen=True)
class Books:
    """The log, by session, in the order of sequences."""

    rows: Mapping[str, Sequence[Row]]

    @property
    def ends(self) -> Mapping[str, int]:
        """The last sequence of each session."""
        return {session_id: len(rows) for session_id, rows in self.rows.items()}

    def messages(self, session_id: str) -> list[Row]:
        """What was written to it."""
        return [row for row in self.rows.get(session_id, ()) if row.text]

    def missing(self, written: Mapping[str, Sequence[str]]) -> int:
        """Texts that are not in the log."""
        return sum(len(set(texts) - {row.text for row in self.messages(name)}) for name, texts in written.items())

    def judge(self, written: Mapping[str, Sequence[str]], falls: Falls) -> list[str]:
        """Sentences about what must not be. `written`: texts to each session, in their order."""
        return [
            sentence
            for session_id, texts in written.items()
            for sentence in (
                *self._numbers(session_id),
                *self._repeated(session_id),
                *self._disordered(session_id, texts, falls),
                *self._unexcused(session_id, texts, falls),
            )
        ]

    def _numbers(self, session_id: str) -> list[str]:
        numbers = [row.sequence for row in self.rows.get(session_id, ())]
        is_gapless = numbers == list(range(1, len(numbers) + 1))
        return [] if is_gapless else [f"the sequences of {session_id} have a gap, or a double"]

    def _repeated(self, session_id: str) -> list[str]:
        counts = Counter(row.message_id for row in self.messages(session_id))
        return [f"{session_id} has {message_id} {count} times" for message_id, count in counts.items() if count > 1]

    def _disordered(self, session_id: str, texts: Sequence[str], falls: Falls) -> list[str]:
        """What stands behind something that was written later; what may be late, behind something of its own epoch."""
        place = {text: number for number, text in enumerate(texts)}
        latest: dict[int, Row] = {}
        sentences = []
        for row in (row for row in self.messages(session_id) if row.text in place):
            for epoch, before in latest.items():
                may_be = falls.may_be_late(session_id, row.epoch) and epoch > row.epoch
                if place[row.text] < place[before.text] and not may_be:
                    sentences.append(
                        f"{session_id} has {row.text!r} (epoch {row.epoch}) behind {before.text!r} (epoch {epoch})"
                    )
            latest[row.epoch] = max(row, latest.get(row.epoch, row), key=lambda one: place[one.text])
        return sentences

    def _unexcused(self, session_id: str, texts: Sequence[str], falls: Falls) -> list[str]:
        """Gaps that are wider than what fell there can have cost."""
        epochs = {row.text: row.epoch for row in self.messages(session_id)}
        first, gap, sentences = 0, 0, []
        for text in (*texts, None):
            if text is not None and text not in epochs:
                gap += 1
                continue
            before = epochs[text] if text is not None else None
            if gap > (excused := falls.may_cost(session_id, first, before)):
                sentences.append(
                    f"{session_id} lacks {gap} messages before {text!r}, between the epochs {first} and {before}, where"
                    f" {excused} may be lost"
                )
            first, gap = before or first, 0
        return sentences


async def read(sql: Sql) -> Books:
    """As it is now."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in await sql.fetch(_LOG):
        message = event_pb2.Event.FromString(row["payload"]).message_received
        rows[row["session_id"]].append(
            Row(
                session_id=row["session_id"],
                sequence=row["sequence"],
                epoch=row["epoch"],
                message_id=message.message_id,
                text=message.text,
                appended_at=row["appended_at"].timestamp(),
            )
        )
    return Books(rows)
