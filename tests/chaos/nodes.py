"""Three nodes and chance: kills, freezes, cuts and restarts in any order, and what must hold after each of them.

One node is struck at a time, or two, while the others go on; what strikes them lasts for up to two ttl. After every
step: no device was ever connected twice at once or thrown out by itself, epochs have only grown, every session is
connected again within its bound. In the end: every message is in the log once and in order, and a consumer of Watch
has been given every event once and in order; what callers were told to be sent has arrived once.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field

import psutil

from tests.caller import State
from tests.chaos.events import accounts, books
from tests.chaos.events.consumers import Follower
from tests.chaos.events.falls import Start, running
from tests.chaos.places import TTL, Place
from tests.e2e.callers import Told
from tests.e2e.cluster import Cluster
from tests.e2e.sql import Sql
from tests.judgement import Judgement, judge
from tests.scenarios.faults import (
    Fault,
    disturbed,
    frozen,
    have,
    killed,
    lost,
    start,
    stop,
    stopped,
    together,
)
from tests.scenarios.stage import Stage
from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy

BUSY = 5.0
"""Seconds that a machine may need besides the bound, if it runs other things as well."""
COME_BACK = TTL + 3.0 + BUSY
RATE = 2.0
"""Messages a second to each session."""


@dataclass
class Report:
    """What happened."""

    steps: list[str] = field(default_factory=list)
    falls: int = 0
    """Processes, zygotes, nodes and machines that were killed."""
    log: Judgement = field(default_factory=Judgement)
    watched: int = 0
    """Events that the consumer was given."""
    sent: int = 0
    refused: int = 0
    longest: float = 0.0
    """Seconds from the end of a blow until every session was connected."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.log.kinds.items()))
        return (
            f"{len(self.steps)} steps, {self.falls} falls; {self.log} ({kinds}); {self.watched} events watched;"
            f" {self.sent} sent, {self.refused} refused; longest way back {self.longest:.1f} s"
        )


@dataclass(frozen=True)
class Target:
    """What a strike hits: a place, the next one if it is for two, and for how long."""

    place: Place
    next: Place
    run: "Run"
    seconds: float

    @property
    def node(self) -> ServiceProcess:
        """The node that is hit first."""
        return self.place.node

    async def kill_one_of(self, processes: Mapping[Start, psutil.Process]) -> None:
        """Kill a session process, and wait until its session has another one."""
        if processes:
            victim = self.run.choose(sorted(processes))
            processes[victim].kill()
            self.run.report.falls += 1
            await self.node.wait_state(
                victim.session_id, State.STATE_CONNECTED, timeout=COME_BACK, after_epoch=victim.epoch
            )


@asynccontextmanager
async def _process_killed(at: Target) -> AsyncIterator[None]:
    await at.kill_one_of(await asyncio.to_thread(running, [at.node]))
    yield


@asynccontextmanager
async def _zygote_killed(at: Target) -> AsyncIterator[None]:
    """And a process right after it, which needs another zygote."""
    processes = await asyncio.to_thread(running, [at.node])
    for zygote in at.node.processes()[1:2]:
        zygote.kill()
        at.run.report.falls += 1
    await at.kill_one_of(processes)
    yield


@asynccontextmanager
async def _killed_while_it_stops(at: Target) -> AsyncIterator[None]:
    """In the middle of handing over."""
    stopping = asyncio.create_task(at.node.stop())
    yield
    await at.node.kill_all()
    await asyncio.wait((stopping,))
    await start(at.node)


@asynccontextmanager
async def _frozen_while_it_stops(at: Target) -> AsyncIterator[None]:
    """In the middle of handing over, too: what it has handed over is not known until it goes on."""
    stopping = asyncio.create_task(at.node.stop(timeout=60))
    await asyncio.sleep(at.seconds / 20)
    # It may have stopped by now.
    with suppress(ProcessLookupError):
        os.kill(at.node.pid, signal.SIGSTOP)
    yield
    with suppress(ProcessLookupError):
        os.kill(at.node.pid, signal.SIGCONT)
    await asyncio.wait((stopping,))
    await start(at.node)


@asynccontextmanager
async def _target_frozen_while_it_stops(at: Target) -> AsyncIterator[None]:
    """In the middle of handing over: what is the other one's by then it has not begun, and no node can before it wakes
    up or its leases run out."""
    stopping = asyncio.create_task(stop(at.node, timeout=60))
    await asyncio.sleep(at.seconds / 20)
    async with frozen(at.next.node):
        yield
    await stopping
    await start(at.node)


@asynccontextmanager
async def _killed_beside_frozen(at: Target) -> AsyncIterator[None]:
    """The one that would take over holds whatever locks it holds: Postgres ends its transactions after 5 s."""
    async with frozen(at.next.node):
        await at.node.kill_node()
        yield
    await start(at.node)


@asynccontextmanager
async def _stopped_cut_off(at: Target) -> AsyncIterator[None]:
    """It can ask no node to expect its sessions: it releases them."""
    async with disturbed(at.place.peers, Line.CUT), stopped(at.node):
        yield


@dataclass(frozen=True)
class Strike(Fault[Target]):
    """A row of the table."""

    kills: int = 0
    """Nodes and machines."""
    is_outlived: bool = False
    """A node's sessions may outlive it there; if not, what is said of one is of before until it has a later epoch."""
    is_of_two: bool = False
    """The next node's sessions are another one's afterwards, too."""


def _of_lines(name: str, lines: Callable[[Place], list[TcpProxy]]) -> Iterator[Strike]:
    for words, state in (("cut off from", Line.CUT), ("silent to", Line.SILENT)):

        def outage(at: Target, state: Line = state) -> AbstractAsyncContextManager[None]:
            return disturbed(lines(at.place), state)

        yield Strike(f"{words} {name}", outage, is_outlived=True)


STRIKES = (
    Strike("kill -9 of a session process", _process_killed, lasts=0.1, is_outlived=True),
    Strike("kill -9 of the zygote and a session process", _zygote_killed, lasts=0.1, is_outlived=True),
    Strike("kill -9 of the node", lambda at: killed(at.node), kills=1),
    Strike("kill -9 of everything", lambda at: lost(at.node), kills=1),
    Strike("SIGTERM", lambda at: stopped(at.node)),
    Strike("SIGTERM, then kill -9 of everything", _killed_while_it_stops, lasts=0.1, kills=1),
    Strike("SIGTERM, then SIGSTOP", _frozen_while_it_stops),
    Strike("SIGTERM, then SIGSTOP of a target", _target_frozen_while_it_stops),
    Strike(
        "SIGTERM of two",
        lambda at: together(stopped(at.node), stopped(at.next.node)),
        lasts=0.25,
        is_of_two=True,
    ),
    Strike("SIGSTOP", lambda at: frozen(at.node), is_outlived=True),
    *_of_lines("Postgres", lambda place: [place.database]),
    *_of_lines("Redis", lambda place: [place.redis]),
    *_of_lines("the other nodes", lambda place: place.peers),
    Strike("SIGTERM, cut off from the other nodes", _stopped_cut_off, lasts=0.25),
    Strike("kill -9 of two", lambda at: together(killed(at.node), killed(at.next.node)), kills=2, is_of_two=True),
    Strike("kill -9 of the node, another one frozen", _killed_beside_frozen, kills=1),
)
"""In the order from which chance draws."""


class Run:
    """One run, by one seed."""

    def __init__(
        self,
        there: Cluster,
        places: list[Place],
        seed: int,
        say: Callable[[str], None],
        strikes: Sequence[Strike] = STRIKES,
    ) -> None:
        self.there = there
        self.report = Report()
        self._places = places
        self._strikes = strikes
        self._chance = random.Random(seed)
        # Not the one of the steps: how many sends fit between two of them is the machine's affair.
        self._chance_of_sender = random.Random(seed)
        self._say = say
        self._epochs: dict[str, int] = {}

    async def steps(self, count: int, sql: Sql) -> Report:
        """Have so many blows. Raises AssertionError with what must not be, then or in the end."""
        here, told = Stage(self.there, sql), Told()
        consumer = Follower("a consumer of Watch", [place.node.address for place in self._places])
        sender = here.callers(lambda: self._chance_of_sender.choice(self._places).node, told)
        async with consumer.following():
            async with self.there.traffic(RATE) as traffic, sender:
                for number in range(count):
                    await self._step(number)
                await traffic.reach(2)
            self.report.log = await here.judge_log(traffic.written)
            ends = (await books.read(sql)).ends
            await accounts.until_reached([consumer], ends, COME_BACK)
        here.outcome.problems += accounts.wrong_with(consumer, ends)
        here.outcome.problems += judge(traffic.written, consumer.by_session).problems
        again = accounts.repetitions(consumer.notes)
        here.outcome.must(not again, f"{again} events were watched twice")
        await here.judge_calls(told)
        self.report.watched, self.report.sent = len(consumer.notes), len(told.sent)
        self.report.refused = told.refused.total()
        if here.outcome.problems:
            raise AssertionError(f"{'; '.join(here.outcome.problems)}: {self.report}")
        return self.report

    async def owned_by(self, place: Place) -> list[str]:
        """The sessions of a node, as another one says."""
        name = f"node-{self._places.index(place)}"
        asked = self._another(place)
        return [one for one in self.there.sessions if (await asked.status(one)).owner.node == name]

    def choose(self, starts: Sequence[Start]) -> Start:
        """Choose a session process by chance."""
        return self._chance.choice(starts)

    def next_to(self, place: Place) -> Place:
        """Not the one that is asked."""
        asked = self._another(place)
        return next(other for other in self._places if other is not place and other.node is not asked)

    async def _step(self, number: int) -> None:
        place = await self._place()
        strike = self._chance.choice(self._strikes)
        target = Target(place, self.next_to(place), self, self._chance.uniform(0.1, 2 * TTL))
        struck = [place, *([target.next] if strike.is_of_two else [])]
        owned = [session_id for each in struck for session_id in await self.owned_by(each)]
        words = (
            f"{number}: {strike.name}, node {self._places.index(place)} with {len(owned)} sessions,"
            f" {target.seconds:.1f} s"
        )
        self.report.steps.append(words)
        self.report.falls += strike.kills
        await have(strike, target, target.seconds)
        took = await self._all_connected(self._another(place), [] if strike.is_outlived else owned, words)
        self._say(f"{words}; all connected {took:.1f} s later")
        self.report.longest = max(self.report.longest, took)
        await self._assert_invariants(words)

    async def _place(self) -> Place:
        """Any; but a blow to a node without sessions says little, so that two of three go to one that has most."""
        place, is_any = self._chance.choice(self._places), self._chance.random() < 1 / 3
        if is_any or await self.owned_by(place):
            return place
        owner, _ = await self.there.an_owner()
        return next(place for place in self._places if place.node is owner)

    async def _all_connected(self, asked: ServiceProcess, moved: list[str], words: str) -> float:
        began = time.monotonic()
        try:
            for name in moved:
                await asked.wait_state(
                    name, State.STATE_CONNECTED, timeout=COME_BACK, after_epoch=self._epochs.get(name, 1)
                )
            await self.there.all_connected(asked, COME_BACK)
        except TimeoutError as error:
            raise AssertionError(f"after step {words}: {error}") from error
        return time.monotonic() - began

    async def _assert_invariants(self, words: str) -> None:
        for name, jid in self.there.jids.items():
            device = await self.there.simulator.device(jid)
            if device.overlaps or device.replaced:
                raise AssertionError(f"after step {words}: {name} was connected twice at once: {device}")
            session = await self._places[0].node.status(name)
            if not session.HasField("owner"):
                # Just woken up, its node found out that it must not act for it any more: what all were told a moment
                # ago was of before.
                continue
            if session.owner.epoch < self._epochs.get(name, 0):
                raise AssertionError(f"after step {words}: the epoch of {name} went back to {session.owner.epoch}")
            self._epochs[name] = session.owner.epoch

    def _another(self, place: Place) -> ServiceProcess:
        return next(other.node for other in self._places if other is not place)
