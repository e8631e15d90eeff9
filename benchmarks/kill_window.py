"""What `kill -9` of a session process costs: `python -m benchmarks.kill_window [kills]` (100 of each kind by default).

A real session process under traffic, on a simulated WhatsApp and an embedded Postgres, is killed at a moment that is
drawn by chance; another one takes over. A message is lost if neither of the two ever tells of it. Those that had not
been told when the kill came were in flight: on their way to the process, waiting for the database, or in the library.

`--only WORDS` has the kinds of traffic with these words in their names. Exits with 1 if a message was lost, told twice
or out of order.
"""

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev import EmbeddedPostgres
from service.domain.observations import Connected, InboundEvent
from service.store.migrate import migrate
from service.workers.pool import Pool, PoolSettings
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.contents import text_content
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.session_processes import Watched, pair, start, told_by
from tests.event_log import Logged
from tests.judgement import Judgement, judge
from tests.scenarios.servers import open_folder
from tests.traffic import IN_GROUP, PERSONAL, Kind, People, Traffic, Written, gather_people

PHONE = "491700000001"
SESSION = "one"
RATE = 20.0
BURST, BURST_RATE = 40, 1000.0
STEADY_SECONDS, BURST_SECONDS = (0.2, 0.7), (0.0, 0.2)
"""From the first message, or the login, to the kill: at the least, at the most."""
QUIET_S = 0.3
"""After which a repetition has come out of the library, or never will."""
PATIENCE_S = 5.0
"""After which a message that the simulated WhatsApp keeps no more is lost."""


@dataclass(frozen=True)
class Mix:
    """Which kinds of messages there are."""

    name: str
    personal: Sequence[Kind]
    in_group: Sequence[Kind]


MIXES = (Mix("texts", (Kind.TEXT,), ()), Mix("messages of every kind", PERSONAL, IN_GROUP))


@dataclass
class Tally:
    """One kind of traffic, kill after kill."""

    kills: int = 0
    in_flight: int = 0
    messages: Judgement = field(default_factory=Judgement)
    killed_at: dict[str, float] = field(default_factory=dict)
    """By the id of a lost message: when (time.time()) its process was killed."""
    per_kill: Counter[int] = field(default_factory=Counter)

    def add(self, found: Judgement, killed_at: float, in_flight: int) -> None:
        """Count one kill."""
        self.kills += 1
        self.in_flight += in_flight
        self.messages.expected += found.expected
        self.messages.lost += found.lost
        self.messages.twice += found.twice
        self.messages.disordered += found.disordered
        self.killed_at |= {one.message.message_id: killed_at for one in found.lost}
        self.per_kill[len(found.lost)] += 1


class Scene:
    """One paired device, and processes that are it one after another."""

    def __init__(self, pool: Pool, whatsapp: SimulatorControl, jid: str, first: Watched, people: People) -> None:
        self._pool = pool
        self._whatsapp = whatsapp
        self._jid = jid
        self._epoch = 1
        self._watched = first
        self._people = people
        self._origins: set[bytes] = set()
        self._told: list[Logged] = []
        """What the event log would have: what is told again under the same origin is one message."""

    async def kill_under_traffic(self, tally: Tally, mix: Mix) -> None:
        """Messages come in at a steady rate."""
        async with self._traffic(mix, RATE) as traffic:
            await asyncio.sleep(random.uniform(*STEADY_SECONDS))  # noqa: S311 - not a secret
            killed_at, in_flight = await self._kill(traffic.written)
        await self._count(tally, traffic.written, killed_at, in_flight)

    async def kill_after_login(self, tally: Tally, mix: Mix) -> None:
        """Messages that were kept for the device all come in at once."""
        await self._watched.process.kill()
        self._note()
        async with self._traffic(mix, BURST_RATE) as traffic:
            while len(traffic.written) < BURST:
                await traffic.reach(1)
        await self._start()
        await asyncio.sleep(random.uniform(*BURST_SECONDS))  # noqa: S311 - not a secret
        killed_at, in_flight = await self._kill(traffic.written)
        await self._count(tally, traffic.written, killed_at, in_flight)

    def _traffic(self, mix: Mix, rate: float) -> Traffic:
        phones = {SESSION: PHONE}
        return Traffic(self._whatsapp, self._people, phones, rate, personal=mix.personal, in_group=mix.in_group)

    async def _kill(self, written: Sequence[Written]) -> tuple[float, int]:
        """Return when it was, and how many messages were in flight."""
        os.kill(self._watched.process.pid, signal.SIGKILL)
        killed_at, expected = time.time(), list(written)
        await self._watched.ended()
        self._note()
        return killed_at, len(self._judge(expected).lost)

    async def _count(self, tally: Tally, written: Sequence[Written], killed_at: float, in_flight: int) -> None:
        """Count what has become of everything, once the next process is through with it."""
        await self._start()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            await self._whatsapp.wait_for_device(self._jid, lambda device: not device.queue, timeout=30)
            await asyncio.sleep(QUIET_S)
            self._note()
            found = self._judge(written)
            if not found.lost or time.monotonic() > deadline:
                break
        tally.add(found, killed_at, in_flight)

    async def _start(self) -> None:
        self._epoch += 1
        self._watched = await start(self._pool, jid=self._jid, epoch=self._epoch, permit=3600)
        await self._watched.expect(Connected)

    def _judge(self, written: Sequence[Written]) -> Judgement:
        return judge(written, {SESSION: self._told})

    def _note(self) -> None:
        for heard in self._watched.heard:
            if isinstance(heard.observation, InboundEvent) and heard.origin not in self._origins:
                self._origins.add(heard.origin)
                message = told_by(heard.observation).message_received
                self._told.append(Logged(message.message_id, message.text))


async def acknowledged(whatsapp: SimulatorControl, tally: Tally) -> int:
    """Return how many of the lost ones the killed process had confirmed to WhatsApp."""
    count = 0
    for writer in {one.message.writer for one in tally.messages.lost}:
        for sent in await whatsapp.sent(writer):
            if (killed_at := tally.killed_at.get(sent.id)) is not None:
                count += any(":" in receipt.device and receipt.timestamp <= killed_at for receipt in sent.receipts)
    return count


async def tell(whatsapp: SimulatorControl, kind: str, tally: Tally) -> None:
    """Write a paragraph of figures."""
    confirmed = await acknowledged(whatsapp, tally)
    costly = tally.kills - tally.per_kill[0]
    sys.stdout.write(
        f"{kind}: {tally.kills} kills, {tally.in_flight} in flight, {tally.messages};"
        f" {costly} kills cost any, the worst {max(tally.per_kill)};"
        f" of the lost ones {confirmed} were confirmed to WhatsApp before the kill\n"
    )
    for words in tally.messages.problems:
        sys.stdout.write(f"    {words}\n")
    sys.stdout.flush()


async def measure(pool: Pool, whatsapp: SimulatorControl, kills: int, part: str) -> bool:
    """Have every kind of traffic with this part in its name; return whether all was well."""
    friend = await new_phone(whatsapp, "Friend")
    watched, jid = await pair(pool, whatsapp, PHONE, SESSION)
    # Then the friend's conversation with it is an established one.
    await watched.process.send(f"{friend}@s.whatsapp.net", text_content("hello"), 10)
    people = await gather_people(whatsapp, friend, [PHONE])
    scene = Scene(pool, whatsapp, jid, watched, people)
    is_good = True
    for mix in MIXES:
        for kind, kill in (
            (f"{mix.name}, {RATE:g} a second", scene.kill_under_traffic),
            (f"{mix.name}, {BURST} at the login", scene.kill_after_login),
        ):
            if part in kind:
                tally = Tally()
                for _ in range(kills):
                    await kill(tally, mix)
                await tell(whatsapp, kind, tally)
                is_good &= not tally.messages.problems
    return is_good


async def main(folder: Path, kills: int, part: str) -> int:
    """Start servers and a pool, and write the figures; 1 if a message was lost."""
    logging.disable(logging.WARNING)  # each kill is one, with its last words
    async with EmbeddedPostgres(folder, durable=False, die_with_starter=True) as postgres, SimulatorProcess() as sim:
        await migrate(postgres.url)
        pool = Pool(PoolSettings(postgres.url, preload=PRELOAD), {**os.environ, **sim.environment()})
        try:
            await pool.open()
            await pool.prepare_store()
            return int(not await measure(pool, sim.control, kills, part))
        finally:
            await pool.close()


def arguments() -> argparse.Namespace:
    """Return what to do."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_window", description="What a kill costs.")
    parser.add_argument("kills", nargs="?", type=int, default=100)
    parser.add_argument("--only", default="", help="a part of the names of the kinds of traffic to have")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    with open_folder() as place:
        sys.exit(asyncio.run(main(place, given.kills, given.only)))
