"""What the event log has of the messages that were written, read straight from the database."""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.sql import Sql
from tests.judgement import Judgement, judge
from tests.traffic import Written
from zap.v1 import event_pb2

_POLL_S = 0.2
_REPETITION_S = 0.5
"""How long a repetition may take that comes behind the last message."""
_MESSAGES = """
SELECT session_id, payload FROM zap.event WHERE type = 'MESSAGE_RECEIVED' ORDER BY session_id, sequence
"""
_SEQUENCES = "SELECT session_id, sequence FROM zap.event ORDER BY session_id, sequence"


@dataclass(frozen=True)
class Logged:
    """A message of the log."""

    message_id: str
    text: str
    at: float = 0.0
    """When it was first seen there, in Unix seconds, if that was looked for."""

    @staticmethod
    def of(payload: bytes, at: float = 0.0) -> "Logged":
        """Read an event of the log."""
        message = event_pb2.Event.FromString(payload).message_received
        return Logged(message.message_id, message.text, at)


class Missing:
    """How many messages have not arrived, and for how long it has not become better."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.count = 0
        # While more is being written, some are always on their way: the fewest count.
        self._fewest = sys.maxsize
        self._better_at = time.monotonic()

    def are(self, count: int) -> None:
        """Note how many there are now."""
        if count < self._fewest or not count:
            self._better_at = time.monotonic()
        self.count, self._fewest = count, min(count, self._fewest)

    @property
    def for_good(self) -> bool:
        """Return whether nothing has come for so long that nothing will."""
        return time.monotonic() > self._better_at + self._patience


async def read_messages(sql: Sql) -> Mapping[str, Sequence[Logged]]:
    """Return the messages of each session, in the log's order."""
    found: defaultdict[str, list[Logged]] = defaultdict(list)
    for row in await sql.fetch(_MESSAGES):
        found[row["session_id"]].append(Logged.of(row["payload"]))
    return found


async def judge_log(
    sql: Sql, written: Sequence[Written], patience: float = 20.0, within: float = float("inf")
) -> Judgement:
    """Judge the log once it has every message, when none has come for so many seconds, or `within` seconds."""
    return await judge_arrived(lambda: read_messages(sql), written, patience, within)


async def judge_arrived(
    read: Callable[[], Awaitable[Mapping[str, Sequence[Logged]]]],
    written: Sequence[Written],
    patience: float,
    within: float = float("inf"),
) -> Judgement:
    """Judge what is read in the same way. A repetition would come behind the last message."""
    missing, deadline = Missing(patience), time.monotonic() + within
    while not missing.for_good and time.monotonic() < deadline:
        missing.are(len(judge(written, await read()).lost))
        if not missing.count:
            break
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(_REPETITION_S)
    return judge(written, await read())


async def assert_gapless(sql: Sql) -> None:
    """Assert that the sequences of each session's events are 1, 2, 3, …"""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for row in await sql.fetch(_SEQUENCES):
        found[row["session_id"]].append(row["sequence"])
    for session_id, numbers in found.items():
        assert numbers == list(range(1, len(numbers) + 1)), session_id
