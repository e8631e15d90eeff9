"""What strikes nodes, session processes, Redis and consumers: each lane by a chance of its own, all at once."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from dev import EmbeddedValkey
from tests.chaos.events.consumers import Mortal
from tests.chaos.events.falls import Falls, running
from tests.scenarios.faults import Fault, frozen, killed, lost, stopped
from tests.service_process import ServiceProcess

Pause = tuple[float, float]
"""Seconds, at least and at most."""


@dataclass(frozen=True)
class Tempo:
    """How soon the next blow of a lane follows on the last, and for how long Redis is away at first."""

    nodes: Pause = (1.0, 5.0)
    processes: Pause = (2.0, 8.0)
    redis: Pause = (5.0, 20.0)
    consumers: Pause = (1.0, 8.0)
    redis_away: float = 60.0


@dataclass(frozen=True)
class NodeBlow(Fault[ServiceProcess]):
    """A row of the table."""

    cause: str = ""
    """What the node's session processes die of in the middle of their work, if they do."""


NODE_BLOWS = (
    NodeBlow("kill -9", killed),
    NodeBlow("kill -9 of everything", lost, cause="kill -9 of everything"),
    NodeBlow("SIGTERM", stopped),
    NodeBlow("SIGSTOP", frozen, cause="watchdogs"),
)
"""In the order from which chance draws."""


@dataclass(frozen=True)
class Absence:
    """Of Redis, in Unix seconds."""

    began: float
    ended: float


@dataclass
class Blows:
    """All lanes. `enough` ends them, each after the blow that it is about."""

    nodes: Sequence[ServiceProcess]
    valkey: EmbeddedValkey
    mortal: Mortal
    seed: int
    ttl: float
    tempo: Tempo
    say: Callable[[str], None]
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    falls: Falls = field(default_factory=Falls)
    struck: dict[str, int] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    async def all(self) -> None:
        """Until it is enough. Everything stands again when this returns."""
        async with asyncio.TaskGroup() as lanes:
            for lane in (self._nodes, self._processes, self._redis, self._consumers):
                lanes.create_task(lane(random.Random(f"{self.seed} {lane.__name__}")))

    async def _nodes(self, chance: random.Random) -> None:
        while not await self._is_enough_after(chance.uniform(*self.tempo.nodes)):
            number, blow = chance.randrange(len(self.nodes)), chance.choice(NODE_BLOWS)
            seconds, node = chance.uniform(0.1, 2 * self.ttl), self.nodes[number]
            self._note(f"{blow.name} of node {number}, {seconds:.1f} s", blow.name)
            processes = await asyncio.to_thread(running, [node])
            async with blow.outage(node):
                await asyncio.sleep(seconds)
                if blow.cause:
                    self.falls.add_dead(processes, blow.cause)

    async def _processes(self, chance: random.Random) -> None:
        while not await self._is_enough_after(chance.uniform(*self.tempo.processes)):
            processes = await asyncio.to_thread(running, self.nodes)
            if not processes:
                continue
            start = chance.choice(sorted(processes))
            with suppress(psutil.NoSuchProcess):
                processes[start].send_signal(signal.SIGKILL)
                self.falls.add([start], "kill -9")
                self._note(f"kill -9 of {start.session_id}, epoch {start.epoch}", "kill -9 of a session process")

    async def _redis(self, chance: random.Random) -> None:
        away = self.tempo.redis_away
        while not await self._is_enough_after(chance.uniform(*self.tempo.redis)):
            self._note(f"kill -9 of Redis, {away:.1f} s", "kill -9 of Redis")
            port, began = self.valkey.port, time.time()
            os.kill(self.valkey.pid, signal.SIGKILL)
            await self._is_enough_after(away)
            await self.valkey.stop()
            await self.valkey.start()
            if self.valkey.port != port:
                raise AssertionError("somebody else has taken Redis's port")
            self.absences.append(Absence(began, time.time()))
            away = chance.uniform(0.1, 5.0)

    async def _consumers(self, chance: random.Random) -> None:
        while not await self._is_enough_after(chance.uniform(*self.tempo.consumers)):
            self._note("kill -9 of a consumer", "kill -9 of a consumer")
            await self.mortal.kill()
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await self.mortal.start()

    async def _is_enough_after(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.enough.wait(), seconds)
        return self.enough.is_set()

    def _note(self, words: str, name: str) -> None:
        self.struck[name] = self.struck.get(name, 0) + 1
        self.say(f"  {time.monotonic() - self._began:6.1f} s: {words}")
