"""The trial: three nodes, phones that write, consumers that watch, everything killed at random; and the judgement."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.events import accounts, books, figures
from tests.chaos.events.blows import Blows, Tempo
from tests.chaos.events.books import Books
from tests.chaos.events.consumers import Follower, Mortal
from tests.e2e.cluster import Cluster
from tests.judgement import judge
from tests.scenarios.report import Outcome
from tests.scenarios.servers import Servers
from tests.scenarios.stage import ARRIVE_S, Stage, stage
from tests.traffic import Written

TTL = 3.0
COME_BACK = TTL + 3.0 + 5.0
"""Seconds in which all sessions must be connected after the last blow: the design's bound, and a busy machine's."""
LOOK = 0.2


@dataclass(frozen=True)
class Size:
    """Of a trial. `rate`: messages a second, to all sessions together."""

    messages: int
    sessions: int
    rate: float = 40.0
    tempo: Tempo = field(default_factory=Tempo)


@dataclass(frozen=True)
class Trial:
    """One run, by one seed. `folder`: for the file of the consumer that is killed."""

    servers: Servers
    folder: Path
    size: Size
    seed: int
    say: Callable[[str], None]

    async def run(self) -> Outcome:
        """The figures, and what of it is not so."""
        outcome = Outcome()
        async with stage(self.servers, self.size.sessions, outcome, ZAP_LEASE_TTL=f"{TTL:g}") as here:
            await self._play(here)
        return outcome

    async def _play(self, here: Stage) -> None:
        there, outcome = here.there, here.outcome
        nodes = [node.address for node in there.nodes]
        followers = [
            Follower("one who follows all", nodes),
            Follower("one who follows two sessions", nodes, there.sessions[:2], first=1),
        ]
        mortal = Mortal(self.folder / "notes", nodes)
        blows = Blows(there.nodes, self.servers.valkey, mortal, self.seed, TTL, self.size.tempo, self.say)
        async with AsyncExitStack() as stack:
            for follower in followers:
                await stack.enter_async_context(follower.following())
            await stack.enter_async_context(mortal)
            written = await self._strike(there, blows)
            await there.all_connected(there.nodes[0], COME_BACK)
            log = await here.judge_log(written)
            found = await books.read(here.sql)
            consumers: list[Follower | Mortal] = [*followers, mortal]
            await accounts.until_reached(consumers, found.ends, ARRIVE_S)
        outcome.say(", ".join(f"{count} times {name}" for name, count in sorted(blows.struck.items())))
        outcome.say(f"{log} in {blows.falls}")
        outcome.problems += found.problems
        await self._judge_consumers(outcome, found, consumers, written)
        for figure in figures.all_of(found, followers[0], mortal, blows.absences):
            outcome.say(figure)
        await outcome.check(there.assert_one_owner_at_a_time())

    async def _strike(self, there: Cluster, blows: Blows) -> Sequence[Written]:
        """Strike until enough was written; return what was."""
        async with there.traffic(self.size.rate / self.size.sessions) as traffic:
            striking = asyncio.create_task(blows.all())
            try:
                while len(traffic.written) < self.size.messages and not striking.done():
                    await asyncio.sleep(LOOK)
                blows.enough.set()
                await striking
            finally:
                striking.cancel()
        return traffic.written

    async def _judge_consumers(
        self,
        outcome: Outcome,
        found: Books,
        consumers: Sequence[Follower | Mortal],
        written: Sequence[Written],
    ) -> None:
        fresh = Follower("one who begins at the end, from the start", consumers[0].nodes)
        async with fresh.following(), asyncio.timeout(ARRIVE_S):
            await fresh.caught_up.wait()
        for consumer in (*consumers, fresh):
            again = accounts.repetitions(consumer.notes)
            outcome.say(f"{consumer.name}: {len(consumer.notes) - again} events, {again} again")
            outcome.problems += accounts.wrong_with(consumer, found.ends)
            outcome.problems += accounts.differences(fresh, consumer)
        outcome.problems += judge(written, fresh.by_session).problems
        ends = sum((consumer.ends for consumer in consumers if isinstance(consumer, Follower)), start=fresh.ends)
        outcome.say(f"streams ended by {dict(ends)}")
