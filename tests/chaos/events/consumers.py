"""The consumers of the trial: some that outlive it, and a process that is killed and goes on from its file."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.events.following import Following, Note, note
from tests.chaos.events.notebook import Notebook
from tests.scenarios.background import beside
from tests.service_process import ROOT


@dataclass
class Follower:
    """Follows in this process: `async with follower.following():` until the end of the block."""

    name: str
    nodes: Sequence[str]
    session_ids: Sequence[str] = ()
    """Those that it asks for; none: all."""
    first: int = 0
    """The node to begin at."""
    notes: list[Note] = field(default_factory=list)
    """All that it was given, in the order in which it came."""
    ends: Counter[str] = field(default_factory=Counter)
    """Why its streams ended."""
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def by_session(self) -> Mapping[str, Sequence[Note]]:
        """What it was given of each session."""
        found: defaultdict[str, list[Note]] = defaultdict(list)
        for each in self.notes:
            found[each.session_id].append(each)
        return found

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Self]:
        """Raises what ended it before its time."""
        async with beside(self._follow()):
            yield self

    async def _follow(self) -> None:
        following = Following(self.nodes, self.session_ids, first=self.first)
        self.ends = following.ends
        async with aclosing(following.responses()) as responses:
            async for stream, response in responses:
                if response.HasField("event"):
                    self.notes.append(note(stream, response.event))
                elif response.bookmark.is_caught_up:
                    self.caught_up.set()


class Mortal:
    """A consumer that is a process of its own, a scribe. `async with Mortal(...) as mortal:`."""

    name = "a process that is killed again and again"
    session_ids: Sequence[str] = ()

    def __init__(self, file: Path, nodes: Sequence[str]) -> None:
        self._file = file
        self.nodes = nodes
        self._process: asyncio.subprocess.Process | None = None
        self.starts: list[float] = []
        """Of its lives, in Unix seconds."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    @property
    def notes(self) -> Sequence[Note]:
        """All that it has written down in all its lives."""
        return [entry.note for entry in Notebook(self._file).entries() if entry.note]

    def catching_up(self) -> list[float]:
        """Seconds from each start until it had read everything, of those lives that were long enough."""
        reached = [entry.at for entry in Notebook(self._file).entries() if entry.is_caught_up]
        ends = [*self.starts[1:], float("inf")]
        firsts = [
            (start, [at for at in reached if start < at < end]) for start, end in zip(self.starts, ends, strict=True)
        ]
        return [moments[0] - start for start, moments in firsts if moments]

    async def start(self) -> None:
        """Another life."""
        self.starts.append(time.time())
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.events.scribe", str(self._file), str(len(self.starts)), *self.nodes),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'generated'}"},
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        """kill -9, in the middle of whatever it does. Raises AssertionError if it had ended by itself."""
        if self._process is None:
            return
        if self._process.returncode is not None:
            raise AssertionError(f"a consumer ended by itself, with {self._process.returncode}")
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self._process = None
