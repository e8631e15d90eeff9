"""One outage of the database under traffic, from quiet to quiet, and what it did."""

import asyncio
import random
import time

from tests.chaos.estate import Estate
from tests.chaos.faults import DatabaseFault
from tests.chaos.postgres import answers
from tests.chaos.reading import Reading, reading
from tests.chaos.verdict import Outage, Verdict, conclude
from tests.chaos.watching import Watch, watching
from tests.chaos.world import World
from tests.e2e.downtime import forget_failures
from tests.event_log import Missing, judge_arrived
from tests.judgement import judge
from tests.scenarios.faults import have
from tests.traffic import Written

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


async def suffer(
    world: World, fault: DatabaseFault, seconds: float, chance: random.Random, rate: float = RATE
) -> Verdict:
    """Have an outage while messages come in; returns when everything is quiet again, or will not be."""
    for session_id in world.there.sessions:
        await forget_failures(world.node, session_id)
    before = await world.counts()
    async with watching(world) as watch, reading(world) as read:
        async with world.traffic(rate) as traffic:
            await asyncio.sleep(_BEFORE + chance.random())
            began, ended = await have(fault, world.estate, seconds)
            outage = Outage(began, ended, await _answered(world.estate))
            await _until_settled(watch, read, traffic.written)
        messages = await judge_arrived(read.again, traffic.written, _LAST_PATIENCE)
    return await conclude(world, before, outage, messages, traffic.written, read.logged, watch.looks)


async def _answered(estate: Estate) -> float:
    """Wait until the database answers by both ways; return when it did."""
    for url in (estate.node_url, estate.session_url):
        while not await answers(url):
            await asyncio.sleep(0.02)
    return time.time()


async def _until_settled(watch: Watch, read: Reading, written: list[Written]) -> None:
    """Until every session has been connected for a while, and has all that was written until a moment ago."""
    began, missing = time.time(), Missing(_PATIENCE)
    while not missing.for_good and time.time() < began + _GIVE_UP:
        await asyncio.sleep(0.2)
        now = time.time()
        due = [message for message in written if message.at < now - _UNDER_WAY]
        missing.are(len(judge(due, read.logged).lost))
        if not missing.count and now > began + _SETTLED and watch.are_all_connected(since=now - _SETTLED):
            return
