"""What `kill -9` of a session process costs: `python -m benchmarks.kill_window [kills]` (100 of each kind by default).

A real session process under traffic, on a simulated WhatsApp and an embedded Postgres, is killed at a moment that is
drawn by chance; another one takes over. A message is lost if neither of the two ever tells of it. Those that had not
been told when the kill came were in flight: on their way to the process, waiting for the database, or in the library.
"""

import asyncio
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dev import EmbeddedPostgres
from service.domain.observations import Connected
from service.pool.pool import Pool, PoolSettings
from service.store.migrate import migrate
from tests.e2e.session_processes import Watched, pair, start
from tests.simulator.control import SimulatorControl
from tests.simulator.process import PRELOAD, SimulatorProcess

PHONE, FRIEND = "491700000001", "491700000002"
RATE = 20.0
BURST = 40
STEADY_SECONDS, BURST_SECONDS = (0.2, 0.7), (0.0, 0.2)
"""From the first message, or the login, to the kill: at the least, at the most."""
QUIET = 0.3
"""Seconds after which whatever was acknowledged has come out of the library, or never will."""


@dataclass
class Tally:
    """One kind of traffic, kill after kill."""

    kills: int = 0
    written: int = 0
    in_flight: int = 0
    lost: dict[str, float] = field(default_factory=dict)
    """Texts, and when (time.time()) their process was killed."""
    per_kill: Counter[int] = field(default_factory=Counter)


class Writer:
    """A friend who writes numbered texts."""

    def __init__(self, whatsapp: SimulatorControl) -> None:
        self._whatsapp = whatsapp
        self._count = 0
        self.written: list[str] = []

    async def write(self) -> None:
        """One text."""
        self._count += 1
        text = f"text {self._count}"
        await self._whatsapp.write(FRIEND, PHONE, text)
        self.written.append(text)

    async def steadily(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(1 / RATE)


class Scene:
    """One paired device, and processes that are it one after another."""

    def __init__(self, pool: Pool, whatsapp: SimulatorControl, jid: str, first: Watched) -> None:
        self._pool = pool
        self._whatsapp = whatsapp
        self._writer = Writer(whatsapp)
        self._jid = jid
        self._epoch = 1
        self._watched = first
        self._told: set[str] = set()

    async def kill_under_traffic(self, tally: Tally) -> None:
        """Messages come in at a steady rate."""
        already = len(self._writer.written)
        writing = asyncio.create_task(self._writer.steadily())
        await asyncio.sleep(random.uniform(*STEADY_SECONDS))  # noqa: S311 - not a secret
        killed, in_flight = await self._kill(already)
        writing.cancel()
        await asyncio.wait([writing])
        await self._count(tally, already, killed, in_flight)

    async def kill_after_login(self, tally: Tally) -> None:
        """Messages that were kept for the device all come in at once."""
        await self._watched.process.kill()
        self._note()
        already = len(self._writer.written)
        for _ in range(BURST):
            await self._writer.write()
        await self._start()
        await asyncio.sleep(random.uniform(*BURST_SECONDS))  # noqa: S311 - not a secret
        killed, in_flight = await self._kill(already)
        await self._count(tally, already, killed, in_flight)

    async def _kill(self, already: int) -> tuple[float, int]:
        """When it was, and how many were in flight."""
        os.kill(self._watched.process.pid, signal.SIGKILL)
        killed, expected = time.time(), set(self._writer.written[already:])
        await self._watched.ended()
        self._note()
        return killed, len(expected - self._told)

    async def _count(self, tally: Tally, already: int, killed: float, in_flight: int) -> None:
        """What has become of everything, once the next process is through with it."""
        await self._start()
        await self._whatsapp.wait_for_device(self._jid, lambda device: not device.queue, timeout=30)
        await asyncio.sleep(QUIET)
        self._note()
        lost = set(self._writer.written[already:]) - self._told
        tally.kills += 1
        tally.written += len(self._writer.written) - already
        tally.in_flight += in_flight
        tally.lost |= dict.fromkeys(lost, killed)
        tally.per_kill[len(lost)] += 1

    async def _start(self) -> None:
        self._epoch += 1
        self._watched = await start(self._pool, jid=self._jid, epoch=self._epoch, permit=3600)
        await self._watched.expect(Connected)

    def _note(self) -> None:
        self._told |= {message.text for message in self._watched.messages}


async def acknowledged(whatsapp: SimulatorControl, lost: dict[str, float]) -> int:
    """How many of these the killed process had confirmed to WhatsApp; the others were sent again, and refused."""
    count = 0
    for sent in await whatsapp.sent(FRIEND):
        if (killed := lost.get(sent.text)) is not None:
            count += any(":" in receipt.device and receipt.timestamp <= killed for receipt in sent.receipts)
    return count


async def tell(whatsapp: SimulatorControl, kind: str, tally: Tally) -> None:
    """A paragraph of figures."""
    confirmed = await acknowledged(whatsapp, tally.lost)
    costly = tally.kills - tally.per_kill[0]
    sys.stdout.write(
        f"{kind}: {tally.kills} kills, {tally.written} messages, {tally.in_flight} in flight, {len(tally.lost)} lost"
        f" ({len(tally.lost) / max(1, tally.in_flight):.1%} of those in flight);"
        f" {costly} kills cost any, the worst {max(tally.per_kill)};"
        f" of the lost ones {confirmed} were confirmed to WhatsApp before the kill\n"
    )


async def measure(pool: Pool, whatsapp: SimulatorControl, kills: int) -> None:
    """Both kinds of traffic."""
    await whatsapp.create_phone(FRIEND, "Friend")
    watched, jid = await pair(pool, whatsapp, PHONE)
    scene = Scene(pool, whatsapp, jid, watched)
    for kind, kill in (
        (f"{RATE:g} messages a second", scene.kill_under_traffic),
        (f"{BURST} messages at the login", scene.kill_after_login),
    ):
        tally = Tally()
        for _ in range(kills):
            await kill(tally)
        await tell(whatsapp, kind, tally)


async def main(folder: Path, kills: int) -> None:
    """Servers, a pool, and the figures."""
    logging.disable(logging.WARNING)  # each kill is one, with its last words
    async with EmbeddedPostgres(folder, durable=False, die_with_starter=True) as postgres, SimulatorProcess() as sim:
        await migrate(postgres.url)
        pool = Pool(PoolSettings(postgres.url, preload=PRELOAD), {**os.environ, **sim.environment()})
        try:
            await pool.open()
            await pool.prepare_store()
            await measure(pool, sim.control, kills)
        finally:
            await pool.close()


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp(prefix="zap-kills-"))
    place.chmod(0o711)
    try:
        asyncio.run(main(place, int(sys.argv[1]) if len(sys.argv) > 1 else 100))
    finally:
        shutil.rmtree(place, ignore_errors=True)
