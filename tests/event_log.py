"""What the event log has of the messages that were written, read straight from the database."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
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

    @staticmethod
    def of(payload: bytes) -> "Logged":
        """Read an event of the log."""
        message = event_pb2.Event.FromString(payload).message_received
        return Logged(message.message_id, message.text)


async def read_messages(sql: Sql) -> Mapping[str, Sequence[Logged]]:
    """Return the messages of each session, in the log's order."""
    found: defaultdict[str, list[Logged]] = defaultdict(list)
    for row in await sql.fetch(_MESSAGES):
        found[row["session_id"]].append(Logged.of(row["payload"]))
    return found


async def judge_log(sql: Sql, written: Sequence[Written], patience: float = 20.0) -> Judgement:
    """Judge the log once it has every message, or when none has come for so many seconds."""
    clock, fewest = asyncio.get_running_loop().time, sys.maxsize
    came_at = clock()
    while (lost := len(judge(written, await read_messages(sql)).lost)) and clock() < came_at + patience:
        if lost < fewest:
            fewest, came_at = lost, clock()
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(_REPETITION_S)
    return judge(written, await read_messages(sql))


async def assert_gapless(sql: Sql) -> None:
    """Assert that the sequences of each session's events are 1, 2, 3, …"""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for row in await sql.fetch(_SEQUENCES):
        found[row["session_id"]].append(row["sequence"])
    for session_id, numbers in found.items():
        assert numbers == list(range(1, len(numbers) + 1)), session_id
