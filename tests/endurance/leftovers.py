"""Hundreds of rounds of each kind: the census before and after, and what a round costs in memory."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from tests.e2e.pairing_helpers import new_phone, pair
from tests.endurance import dead_callers
from tests.endurance.census import IDLE_CONNECTIONS, Observer
from tests.endurance.memory import Memory, slope
from tests.endurance.rounds import PATIENCE, Rounds
from tests.endurance.stage import Stage, set_up
from tests.scenarios.report import say

WARM_UP = 24
"""Rounds of each kind after which nothing is new: every code path has run, every pool is filled."""
MOST_PER_ROUND = 16.0
"""KiB that a process may seem to grow by with each round: pages of the allocator's, not of ours."""
AT_ONCE = 20
"""Sessions whose codes are used up at once: that takes 40 s."""

Play = Callable[[], Awaitable[None]]


async def run(rounds: int) -> list[str]:
    """Play so many rounds of each kind; what is wrong at the end."""
    async with set_up() as stage:
        return await _run(stage, rounds)


async def _run(stage: Stage, count: int) -> list[str]:
    node, simulator = stage.node, stage.simulator
    phone = await new_phone(simulator, "Anna")
    for session_id in ("switched", "killed"):
        await pair(node, simulator, session_id, await new_phone(simulator, session_id))
    crowd = [f"crowd-{number}" for number in range(AT_ONCE)]
    for session_id in ("failing", *crowd):
        await node.create(session_id, activate=False)
    rounds = Rounds(node, simulator, phone)
    ways = itertools.cycle(rounds.failures)
    kinds: dict[str, tuple[Play, int]] = {
        "switched off and on": (lambda: rounds.switch_off_and_on("switched"), count),
        "process killed": (lambda: rounds.kill("killed"), count),
        "zygote killed": (lambda: rounds.kill_zygote("switched"), count // 4),
        "pairing failed": (lambda: rounds.fail_to_pair("failing", next(ways)), count),
    }
    wrong = []
    observer = Observer(node, stage.database_url, stage.sql, stage.temporary)
    await _use_up(stage, rounds, crowd)
    for name, (play, times) in kinds.items():
        for session_id in ("switched", "killed"):
            await rounds.switch_on(session_id)
        await _play(stage, name, play, min(times, WARM_UP))
        await _rest(rounds)
        before = await observer.settled()
        for session_id in ("switched", "killed"):
            await rounds.switch_on(session_id)
        wrong += await _play(stage, name, play, times)
        await _rest(rounds)
        wrong += [f"{name}: {what} {how}" for what, how in (await observer.as_before(before)).items()]
    before = await observer.settled()
    await _use_up(stage, rounds, crowd)
    wrong += [f"codes used up: {what} {how}" for what, how in (await observer.as_before(before)).items()]
    wrong += await dead_callers.run(stage, "failing")
    wrong += [f"a frozen caller: {what} {how}" for what, how in (await observer.as_before(before)).items()]
    last = await observer.take()
    wrong += [f"{what}: {number}" for what, number in last.bounded.items() if number > IDLE_CONNECTIONS]
    say(f"left at the end: {dict(last.exact)}, within bounds: {dict(last.bounded)}")
    return wrong


async def _play(stage: Stage, name: str, play: Play, count: int) -> list[str]:
    """Rounds of one kind, the memory of node and zygote after each; what grew too much."""
    samples: dict[str, list[float]] = {"node": [], "node (PSS)": [], "zygote": [], "zygote (PSS)": []}
    began = time.monotonic()
    for _ in range(count):
        await play()
        for who, pid in (("node", stage.node.pid), ("zygote", stage.node.processes()[1].pid)):
            memory = Memory.of([pid])
            samples[who].append(memory.private)
            samples[f"{who} (PSS)"].append(memory.proportional)
    took = (time.monotonic() - began) / count
    slopes = {who: slope(range(count), values) for who, values in samples.items()}
    words = ", ".join(
        f"{who} {values[0]:.0f} → {values[-1]:.0f} KiB, {slopes[who]:+.2f} each" for who, values in samples.items()
    )
    say(f"{name}: {count} rounds of {took:.2f} s; {words}")
    return [
        f"{name}: {who} grows by {slopes[who]:.1f} KiB a round"
        for who in ("node", "zygote")
        if slopes[who] > MOST_PER_ROUND
    ]


async def _use_up(stage: Stage, rounds: Rounds, crowd: list[str]) -> None:
    """Pairings that nobody scans, at once, with two codes each."""
    await stage.simulator.set_qr_refs(2)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            await asyncio.gather(*(rounds.use_up_codes(session_id) for session_id in crowd))
    finally:
        await stage.simulator.set_qr_refs(6)


async def _rest(rounds: Rounds) -> None:
    for session_id in ("switched", "killed"):
        await rounds.switch_off(session_id)
