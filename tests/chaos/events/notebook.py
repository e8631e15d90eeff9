"""A consumer's file: each event together with the token that resumes after it, in one line, written at once."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.events.following import Note


@dataclass(frozen=True)
class Entry:
    """One response. `at` in Unix seconds; a bookmark has no note."""

    token: str
    at: float
    note: Note | None = None
    is_caught_up: bool = False


class Notebook:
    """Lines of JSON. Whoever writes into it may be killed at any moment."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def entries(self) -> Iterator[Entry]:
        """All that were written to their end."""
        for line in self._whole().splitlines():
            fields = json.loads(line)
            said = fields.pop("note")
            yield Entry(note=Note(**said) if said else None, **fields)

    def mend(self) -> None:
        """Take away what somebody was killed in the middle of."""
        if self._file.exists():
            os.truncate(self._file, len(self._whole()))

    def write(self, entry: Entry) -> None:
        """Append a line; it outlives the process as soon as this returns."""
        with self._file.open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(entry)).encode() + b"\n")

    def _whole(self) -> bytes:
        written = self._file.read_bytes() if self._file.exists() else b""
        return written[: written.rfind(b"\n") + 1]
