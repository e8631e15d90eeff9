"""One outage of the database under traffic, from quiet to quiet, and what it did."""

import asyncio
import random
import sys
import time
from functools import partial

from tests.caller import State
from tests.chaos.faults import Fault
from tests.chaos.postgres import answers
from tests.chaos.reading import Reading
from tests.chaos.verdict import Outage, Verdict, books, conclude
from tests.chaos.watching import Watch
from tests.chaos.world import World
from tests.eventually import eventually
from tests.judgement import judge
from tests.traffic import Written
from zap.v1 import session_pb2

RATE = 20.0
"""Messages a second."""

_BEFORE = 1.0
_SETTLED = 2.0
"""Seconds for which every session must have been connected."""
_UNDER_WAY = 1.0
"""Seconds that a message may take."""
_GIVE_UP = 120.0
"""Seconds after which it is judged as it is, quiet or not."""
_PATIENCE, _LAST_PATIENCE = 22.0, 5.0
"""Seconds without progress after which what is missing is given up: at first, and once all who come back are back."""


async def suffer(world: World, fault: Fault, seconds: float, chance: random.Random, rate: float = RATE) -> Verdict:
    """Have an outage while messages come in; returns when everything is quiet again, or will not be."""
    for session in world.sessions:
        # So that each outage is the session's first, as far as the back-off is concerned.
        await world.node.sessions.Restart(session_pb2.RestartRequest(session_id=session.session_id))
        await world.node.wait_state(session.session_id, State.STATE_CONNECTED, timeout=_PATIENCE)
    before = await books(world)
    async with Watch(world) as watch, Reading(world) as reading:
        async with world.traffic(rate) as traffic:
            await asyncio.sleep(_BEFORE + chance.random())
            outage = await _have(world, fault, seconds)
            await _until_settled(watch, reading, traffic.written)
        await _until_logged(reading, traffic.written)
    return await conclude(world, before, outage, traffic.written, reading.logged, watch.looks)


async def _have(world: World, fault: Fault, seconds: float) -> Outage:
    began = time.time()
    async with fault.outage(world.estate):
        await asyncio.sleep(seconds)
        ended = time.time()
    for url in (world.estate.node_url, world.estate.session_url):
        await eventually(partial(answers, url))
    return Outage(began, ended, time.time())


async def _until_settled(watch: Watch, reading: Reading, written: list[Written]) -> None:
    """Until every session has been connected for a while, and has all that was written until a moment ago."""
    began, missing = time.time(), Missing(_PATIENCE)
    while not missing.for_good and time.time() < began + _GIVE_UP:
        await asyncio.sleep(0.2)
        now = time.time()
        due = [message for message in written if message.at < now - _UNDER_WAY]
        missing.are(len(judge(due, reading.logged).lost))
        if not missing.count and now > began + _SETTLED and watch.are_all_connected(since=now - _SETTLED):
            return


async def _until_logged(reading: Reading, written: list[Written]) -> None:
    missing = Missing(_LAST_PATIENCE)
    while not missing.for_good:
        missing.are(len(judge(written, reading.logged).lost))
        if not missing.count:
            break
        await asyncio.sleep(0.2)
    # A repetition would come behind the last of them.
    await asyncio.sleep(0.5)


class Missing:
    """How many messages have not arrived, and for how long it has not become better."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.count = 0
        # While more is being written, some are always on their way: the fewest count.
        self._fewest = sys.maxsize
        self._better_at = time.monotonic()

    def are(self, count: int) -> None:
        """So many now."""
        if count < self._fewest or not count:
            self._better_at = time.monotonic()
        self.count, self._fewest = count, min(count, self._fewest)

    @property
    def for_good(self) -> bool:
        """Whether nothing has come for so long that nothing will."""
        return time.monotonic() > self._better_at + self._patience
