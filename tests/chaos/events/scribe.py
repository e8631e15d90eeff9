"""A consumer as a process: `python -m tests.chaos.events.scribe FILE LIFE NODE…` resumes from its file, for ever."""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from tests.chaos.events.following import Following, note
from tests.chaos.events.notebook import Entry, Notebook

STREAMS_OF_A_LIFE = 1_000_000
"""More than it can have: those of its next life get the numbers that follow."""


async def write(notebook: Notebook, life: int, nodes: Sequence[str]) -> None:
    """Note each response before the next one is asked for."""
    notebook.mend()
    token = ""
    for entry in notebook.entries():
        token = entry.token
    following = Following(nodes, token=token, first=life)
    async with aclosing(following.responses()) as responses:
        async for stream, response in responses:
            has_event = response.HasField("event")
            numbered = life * STREAMS_OF_A_LIFE + stream
            notebook.write(
                Entry(
                    token=response.resume_token,
                    at=time.time(),
                    note=note(numbered, response.event) if has_event else None,
                    is_caught_up=response.bookmark.is_caught_up,
                )
            )


if __name__ == "__main__":
    asyncio.run(write(Notebook(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:]))
