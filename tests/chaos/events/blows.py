"""What strikes nodes, session processes, Redis and consumers: each lane by a chance of its own, all at once."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from dev import EmbeddedValkey
from tests.chaos.events.consumers import Mortal
from tests.chaos.events.falls import Falls, running
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
            number, name = chance.randrange(len(self.nodes)), chance.choice(list(STRIKES))
            seconds = chance.uniform(0.1, 2 * self.ttl)
            self._note(f"{name} of node {number}, {seconds:.1f} s", name)
            await STRIKES[name](self, self.nodes[number], seconds)

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


Strike = Callable[[Blows, ServiceProcess, float], Awaitable[None]]


async def _kill_node(blows: Blows, node: ServiceProcess, seconds: float) -> None:
    await node.kill_node()
    await _back(node, seconds)


async def _kill_all(blows: Blows, node: ServiceProcess, seconds: float) -> None:
    blows.falls.add(await asyncio.to_thread(running, [node]), "kill -9 of everything")
    await node.kill_all()
    await _back(node, seconds)


async def _stop(blows: Blows, node: ServiceProcess, seconds: float) -> None:
    if (code := await node.stop()) != 0:
        raise AssertionError(f"a node that was asked to stop ended with {code}")
    await _back(node, seconds)


async def _freeze(blows: Blows, node: ServiceProcess, seconds: float) -> None:
    """Its session processes get no permits meanwhile: their watchdogs kill them if that lasts."""
    processes = await asyncio.to_thread(running, [node])
    os.kill(node.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        blows.falls.add_dead(processes, "watchdogs")
    finally:
        os.kill(node.pid, signal.SIGCONT)


async def _back(node: ServiceProcess, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await node.start()
    await node.wait_ready()


STRIKES: Mapping[str, Strike] = {
    "kill -9": _kill_node,
    "kill -9 of everything": _kill_all,
    "SIGTERM": _stop,
    "SIGSTOP": _freeze,
}
