"""What three nodes must show, at the size it is asked for: each trial once, with its figures and its verdict."""

import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from tests.chaos.stage import Books, Stage, sessions_of, stage
from tests.e2e.callers import Told
from tests.scenarios.report import Outcome
from tests.scenarios.servers import Servers
from tests.service_process import ServiceProcess
from tests.traffic import Written

RATE = 2.0
"""Messages a second that come in for each session."""
PACE = 10.0
"""Starts a second of each node: ZAP_CONNECTS_PER_SECOND, as it is by default."""
AWAY = 1.0
"""Seconds for which a planned stop takes a session away, at p95 (design 5b)."""
COME_BACK = 3.0
"""Seconds after the end of a lease within which its session is connected elsewhere (design 5b)."""
PATIENCE = 60.0
STALE = "zap_stale_writes_total"


@dataclass(frozen=True)
class Size:
    """How many sessions."""

    sessions: int
    crowd: int
    """Where all are claimed at once."""


Trial = Callable[[Servers, Size, Outcome], Awaitable[None]]


async def _killed(servers: Servers, size: Size, outcome: Outcome, *, ttl: float, everything: bool) -> None:
    async with stage(servers, size.sessions, ttl) as here:
        victim, asked, *_ = here.there.nodes
        told = Told()
        before = await here.books(asked)
        async with here.traffic(RATE) as written, here.callers(asked, told):
            killed_at = time.time()
            await (victim.kill_all() if everything else victim.kill_node())
            back = await here.back(asked, before, PATIENCE)
        outcome.within("all connected elsewhere", max(back.values()) - killed_at, ttl + COME_BACK)
        after = await here.books(asked)
        _once_more(outcome, before, after)
        await here.judge(outcome, before, after, written)
        await here.judge_calls(outcome, told)


async def _frozen(servers: Servers, size: Size, outcome: Outcome, *, ttl: float) -> None:
    async with stage(servers, size.sessions, ttl) as here:
        victim, asked, _ = here.there.nodes
        before = await here.books(asked)
        async with here.traffic(RATE) as written:
            frozen_at = time.time()
            os.kill(victim.pid, signal.SIGSTOP)
            try:
                back = await here.back(asked, before, PATIENCE)
                await asyncio.sleep(max(0.0, frozen_at + 3 * ttl - time.time()))
                followed = await here.books(asked)
            finally:
                os.kill(victim.pid, signal.SIGCONT)
            await asyncio.sleep(ttl)
            woken = await here.books(asked)
        outcome.within("all connected elsewhere", max(back.values()) - frozen_at, ttl + COME_BACK)
        _once_more(outcome, before, followed)
        if not outcome.problems:
            dead_for = min(_gap(followed, name) for name in here.there.sessions)
            outcome.say(f"dead for {dead_for:.2f} s or longer before others connected")
            outcome.must(dead_for > 0, "others connected before its processes were dead")
        outcome.must(woken.epochs == followed.epochs, "sessions moved when it woke up")
        logins = {name: device.logins for name, device in woken.devices.items()}
        outcome.must(
            logins == {name: device.logins for name, device in followed.devices.items()}, "it connected when it woke up"
        )
        outcome.say(await _stale_writes(victim))
        await here.judge(outcome, before, woken, written)
        await _take_part_again(here, outcome, victim)


async def _take_part_again(here: Stage, outcome: Outcome, woken: ServiceProcess) -> None:
    """Another node stops, and hands its sessions over: some of them to the one that has none."""
    stopping, _ = await here.there.an_owner()
    watched = next(node for node in here.there.nodes if node not in (stopping, woken))
    outcome.must(await stopping.stop() == 0, "a node did not stop as it should")
    await here.there.all_connected(watched, PATIENCE)
    taken = len(await here.there.owned_by(woken))
    outcome.say(f"takes part again, with {taken} sessions")
    outcome.must(taken > 0, "it does not take part again")


async def _stopped(servers: Servers, size: Size, outcome: Outcome, *, ttl: float) -> None:
    async with stage(servers, size.sessions, ttl) as here:
        told = Told()
        before = await here.books(here.there.nodes[1])
        async with here.traffic(RATE) as written:
            await _stop_one(here, outcome, told, here.there.nodes[0])
        await _judge_moves(here, outcome, before, written, told)


async def _stopped_beside_frozen(servers: Servers, size: Size, outcome: Outcome, *, ttl: float) -> None:
    """One of two heirs does not answer: the other one gets all, and nobody waits for the first."""
    async with stage(servers, size.sessions, ttl) as here:
        stopping, frozen, target = here.there.nodes
        before = await here.books(target)
        async with here.traffic(RATE) as written:
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                began = time.time()
                outcome.must(await stopping.stop() == 0, "a node did not stop as it should")
                outcome.within("stopped", time.time() - began, size.sessions * AWAY)
                await here.there.all_connected(target, PATIENCE)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
        await _judge_moves(here, outcome, before, written, Told())
        outcome.must(len(await here.there.owned_by(target)) == size.sessions, "not all went to the node that answers")


async def _rolled(servers: Servers, size: Size, outcome: Outcome, *, ttl: float) -> None:
    async with stage(servers, size.sessions, ttl) as here:
        told = Told()
        before = await here.books(here.there.nodes[1])
        async with here.traffic(RATE) as written:
            for node in here.there.nodes:
                await _stop_one(here, outcome, told, node)
                await node.start()
                await node.wait_ready()
                await asyncio.sleep(1.0)
        await _judge_moves(here, outcome, before, written, told)


async def _stop_one(here: Stage, outcome: Outcome, told: Told, node: ServiceProcess) -> None:
    asked, watched = (other for other in here.there.nodes if other is not node)
    async with here.callers(asked, told):
        outcome.must(await node.stop() == 0, "a node did not stop as it should")
        await here.there.all_connected(watched, PATIENCE)


async def _judge_moves(here: Stage, outcome: Outcome, before: Books, written: Sequence[Written], told: Told) -> None:
    gaps = await here.there.gaps(before.at)
    outcome.must(len(gaps) >= len(here.there.sessions), "not every session was moved")
    if len(gaps) > 1:
        p95 = statistics.quantiles(gaps, n=20, method="inclusive")[-1]
        outcome.say(f"{len(gaps)} moves, away for {statistics.median(gaps):.2f} s at p50, {max(gaps):.2f} at most")
        outcome.within("away at p95", p95, AWAY)
    await here.judge(outcome, before, await here.books(here.there.nodes[1]), written)
    await here.judge_calls(outcome, told)


async def _claimed(servers: Servers, size: Size, outcome: Outcome, *, ttl: float) -> None:
    async with stage(servers, size.crowd, ttl) as here:
        nodes = here.there.nodes
        before = await here.books(nodes[0])
        await asyncio.gather(*(node.kill_all() for node in nodes))
        left = await here.sql.fetchval("SELECT extract(epoch FROM max(expires_at) - clock_timestamp()) FROM zap.lease")
        expired_at = time.time() + float(left or 0)
        await asyncio.gather(*(node.start() for node in nodes))
        await asyncio.gather(*(node.wait_ready() for node in nodes))
        free_at = max(expired_at, time.time())
        back = await here.back(nodes[0], before, PATIENCE)
        # Whoever was claimed twice would log in twice, a moment later.
        await asyncio.sleep(2.0)
        after = await here.books(nodes[0])
        paced = size.crowd / (len(nodes) * PACE)
        outcome.within("all connected, once they were free,", max(back.values()) - free_at, paced + COME_BACK)
        outcome.say(f"the pace alone takes {paced:.1f} s")
        _once_more(outcome, before, after)
        owners = Counter(session.owner.node for session in (await sessions_of(nodes[0])).values())
        outcome.say(f"owned by {', '.join(f'{name} {count}' for name, count in sorted(owners.items()))}")
        await here.judge(outcome, before, after, [])


async def _empty(servers: Servers, size: Size, outcome: Outcome) -> None:
    environment = servers.environment(await servers.new_database(), ZAP_LEASE_TTL="10")
    nodes = [ServiceProcess({**environment, "ZAP_NODE_ID": f"node-{number}"}) for number in range(2)]
    began = time.time()
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        await asyncio.gather(*(node.wait_ready() for node in nodes))
        outcome.within("both ready", time.time() - began, 10.0)
        outcome.must(not any("Traceback" in node.log() for node in nodes), "a stack trace in a log")
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


def _once_more(outcome: Outcome, before: Books, after: Books) -> None:
    """Each session has logged in exactly once since."""
    more = Counter(after.devices[name].logins - device.logins for name, device in before.devices.items())
    outcome.say(", ".join(f"{count} sessions logged in {times} times" for times, count in sorted(more.items())))
    outcome.must(set(more) == {1}, "not each session logged in exactly once")


def _gap(books: Books, name: str) -> float:
    """Seconds from the end of a session's last connection but one to the last one's beginning, by WhatsApp's clock."""
    earlier, last = list(books.devices[name].intervals)[-2:]
    return last.connected_at - (earlier.disconnected_at or float("inf"))


async def _stale_writes(node: ServiceProcess) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{node.http_port}/metrics") as answer,
    ):
        lines = [line for line in (await answer.text()).splitlines() if line.startswith(f"{STALE}{{")]
    # None if it had nothing under way; tests/e2e/test_three_nodes.py freezes a node that has.
    return f"{sum(float(line.rpartition(' ')[2]) for line in lines):g} stale writes refused"


TRIALS: Mapping[str, Trial] = {
    "two nodes at once on an empty database": _empty,
    "kill -9 of a node, ttl 10": partial(_killed, ttl=10.0, everything=False),
    "kill -9 of a node, ttl 5": partial(_killed, ttl=5.0, everything=False),
    "kill -9 of a node's whole machine, ttl 10": partial(_killed, ttl=10.0, everything=True),
    "SIGSTOP for three ttl, then SIGCONT, ttl 10": partial(_frozen, ttl=10.0),
    "SIGTERM of a node, ttl 10": partial(_stopped, ttl=10.0),
    "SIGTERM of a node while another one is frozen, ttl 10": partial(_stopped_beside_frozen, ttl=10.0),
    "rolling restart of all three, ttl 10": partial(_rolled, ttl=10.0),
    "all three killed and started together, ttl 10": partial(_claimed, ttl=10.0),
}


async def make(servers: Servers, size: Size, part: str, say: Callable[[str], None]) -> int:
    """Those with this in their names, one after the other; how many were not good."""
    failed = 0
    for name, trial in TRIALS.items():
        if part not in name:
            continue
        outcome = Outcome()
        try:
            await trial(servers, size, outcome)
        except (AssertionError, TimeoutError, RuntimeError) as error:
            outcome.must(
                holds=False, problem=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
        failed += bool(outcome.problems)
        say(f"{name}\n{outcome}")
    return failed
