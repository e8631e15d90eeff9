"""The log with its epochs and times, and whether its sequences are whole."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.sql import Sql

_LOG = "SELECT session_id, sequence, appended_at FROM zap.event ORDER BY session_id, sequence"


@dataclass(frozen=True)
class Row:
    """One event of the log; `appended_at` in Unix seconds."""

    session_id: str
    sequence: int
    appended_at: float


@dataclass(frozen=True)
class Books:
    """The log, by session, in the order of sequences."""

    rows: Mapping[str, Sequence[Row]]

    @property
    def ends(self) -> Mapping[str, int]:
        """The last sequence of each session."""
        return {session_id: len(rows) for session_id, rows in self.rows.items()}

    @property
    def problems(self) -> list[str]:
        """Sentences about what must not be."""
        return [
            f"the sequences of {session_id} have a gap, or a double"
            for session_id, rows in self.rows.items()
            if [row.sequence for row in rows] != list(range(1, len(rows) + 1))
        ]


async def read(sql: Sql) -> Books:
    """Return it as it is now."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in await sql.fetch(_LOG):
        rows[row["session_id"]].append(Row(row["session_id"], row["sequence"], row["appended_at"].timestamp()))
    return Books(rows)
