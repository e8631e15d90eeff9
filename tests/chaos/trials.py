"""What three nodes must show, at the size it is asked for: each trial once, with its figures and its verdict."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from tests.e2e.callers import Told
from tests.scenarios.faults import frozen, start
from tests.scenarios.report import Outcome
from tests.scenarios.servers import Servers
from tests.scenarios.stage import Stage, sessions_of, stage
from tests.scenarios.verdict import Counts
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
Play = Callable[[Stage, float], Awaitable[None]]
"""On three nodes whose leases last for so many seconds; the first one owns all sessions."""


def _with_nodes(play: Play, ttl: float, *, is_crowd: bool = False) -> Trial:
    async def trial(servers: Servers, size: Size, outcome: Outcome) -> None:
        # What a trial counts is what its fault moves.
        settings = {"ZAP_LEASE_TTL": f"{ttl:g}", "ZAP_REBALANCE": "0"}
        sessions = size.crowd if is_crowd else size.sessions
        async with stage(servers, sessions, outcome, on_first=True, **settings) as here:
            await play(here, ttl)

    return trial


async def _killed(here: Stage, ttl: float, *, everything: bool) -> None:
    victim, asked, *_ = here.there.nodes
    told = Told()
    before = await here.counts()
    async with here.traffic(RATE) as written, here.callers(asked, told):
        killed_at = time.time()
        await (victim.kill_all() if everything else victim.kill_node())
        back = await here.back(asked, before, PATIENCE)
    here.outcome.within("all connected elsewhere", max(back.values()) - killed_at, ttl + COME_BACK)
    after = await here.counts()
    _once_more(here, before, after)
    await here.judge(before, after, written)
    await here.judge_calls(told)


async def _frozen(here: Stage, ttl: float) -> None:
    outcome, (victim, asked, _) = here.outcome, here.there.nodes
    before = await here.counts()
    async with here.traffic(RATE) as written:
        frozen_at = time.time()
        async with frozen(victim):
            back = await here.back(asked, before, PATIENCE)
            await asyncio.sleep(max(0.0, frozen_at + 3 * ttl - time.time()))
            followed = await here.counts()
        await asyncio.sleep(ttl)
        woken = await here.counts()
    outcome.within("all connected elsewhere", max(back.values()) - frozen_at, ttl + COME_BACK)
    _once_more(here, before, followed)
    if not outcome.problems:
        dead_for = min(_gap(followed, name) for name in here.there.sessions)
        outcome.say(f"dead for {dead_for:.2f} s or longer before others connected")
        outcome.must(dead_for > 0, "others connected before its processes were dead")
    outcome.must(woken.epochs == followed.epochs, "sessions moved when it woke up")
    outcome.must(woken.logins == followed.logins, "it connected when it woke up")
    outcome.say(await _stale_writes(victim))
    await here.judge(before, woken, written)
    await _take_part_again(here, victim)


async def _take_part_again(here: Stage, woken: ServiceProcess) -> None:
    """Another node stops, and hands its sessions over: some of them to the one that has none."""
    stopping, _ = await here.there.an_owner()
    watched = next(node for node in here.there.nodes if node not in (stopping, woken))
    here.outcome.must(await stopping.stop() == 0, "a node did not stop as it should")
    await here.there.all_connected(watched, PATIENCE)
    taken = len(await here.there.owned_by(woken))
    here.outcome.say(f"takes part again, with {taken} sessions")
    here.outcome.must(taken > 0, "it does not take part again")


async def _stopped(here: Stage, _: float) -> None:
    told = Told()
    before = await here.counts()
    async with here.traffic(RATE) as written:
        await _stop_one(here, told, here.there.nodes[0])
    await _judge_moves(here, before, written, told)


async def _stopped_beside_frozen(here: Stage, _: float) -> None:
    """One of two possible targets does not answer: the other one gets all, and the stop waits for neither."""
    stopping, silent, target = here.there.nodes
    sessions = len(here.there.sessions)
    before = await here.counts()
    async with here.traffic(RATE) as written, frozen(silent):
        began = time.time()
        here.outcome.must(await stopping.stop() == 0, "a node did not stop as it should")
        here.outcome.within("stopped", time.time() - began, sessions * AWAY)
        await here.there.all_connected(target, PATIENCE)
    await _judge_moves(here, before, written, Told())
    here.outcome.must(len(await here.there.owned_by(target)) == sessions, "not all went to the node that answers")


async def _rolled(here: Stage, _: float) -> None:
    told = Told()
    before = await here.counts()
    async with here.traffic(RATE) as written:
        for node in here.there.nodes:
            await _stop_one(here, told, node)
            await start(node)
            await asyncio.sleep(1.0)
    await _judge_moves(here, before, written, told)


async def _stop_one(here: Stage, told: Told, node: ServiceProcess) -> None:
    asked, watched = (other for other in here.there.nodes if other is not node)
    async with here.callers(asked, told):
        here.outcome.must(await node.stop() == 0, "a node did not stop as it should")
        await here.there.all_connected(watched, PATIENCE)


async def _judge_moves(here: Stage, before: Counts, written: Sequence[Written], told: Told) -> None:
    outcome, gaps = here.outcome, await here.there.gaps(before.at)
    outcome.must(len(gaps) >= len(here.there.sessions), "not every session was moved")
    if len(gaps) > 1:
        p95 = statistics.quantiles(gaps, n=20, method="inclusive")[-1]
        outcome.say(f"{len(gaps)} moves, away for {statistics.median(gaps):.2f} s at p50, {max(gaps):.2f} at most")
        outcome.within("away at p95", p95, AWAY)
    await here.judge(before, await here.counts(), written)
    await here.judge_calls(told)


async def _claimed(here: Stage, _: float) -> None:
    nodes, sessions = here.there.nodes, len(here.there.sessions)
    before = await here.counts()
    await asyncio.gather(*(node.kill_all() for node in nodes))
    left = await here.sql.fetchval("SELECT extract(epoch FROM max(expires_at) - clock_timestamp()) FROM zap.lease")
    expired_at = time.time() + float(left or 0)
    await asyncio.gather(*(start(node) for node in nodes))
    free_at = max(expired_at, time.time())
    back = await here.back(nodes[0], before, PATIENCE)
    # A session that two nodes claimed would log in twice, a moment later.
    await asyncio.sleep(2.0)
    after = await here.counts()
    paced = sessions / (len(nodes) * PACE)
    here.outcome.within("all connected, once they were free,", max(back.values()) - free_at, paced + COME_BACK)
    here.outcome.say(f"the pace alone takes {paced:.1f} s")
    _once_more(here, before, after)
    owners = Counter(session.owner.node for session in (await sessions_of(nodes[0])).values())
    here.outcome.say(f"owned by {', '.join(f'{name} {number}' for name, number in sorted(owners.items()))}")
    await here.judge(before, after, [])


async def _empty(servers: Servers, _: Size, outcome: Outcome) -> None:
    environment = servers.environment(await servers.new_database(), ZAP_LEASE_TTL="10")
    nodes = [ServiceProcess({**environment, "ZAP_NODE_ID": f"node-{number}"}) for number in range(2)]
    began = time.time()
    try:
        await asyncio.gather(*(start(node) for node in nodes))
        outcome.within("both ready", time.time() - began, 10.0)
        outcome.must(not any("Traceback" in node.log() for node in nodes), "a stack trace in a log")
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


def _once_more(here: Stage, before: Counts, after: Counts) -> None:
    """Each session has logged in exactly once since."""
    more = Counter(after.logins[name] - logins for name, logins in before.logins.items())
    here.outcome.say(", ".join(f"{count} sessions logged in {times} times" for times, count in sorted(more.items())))
    here.outcome.must(set(more) == {1}, "not each session logged in exactly once")


def _gap(counts: Counts, name: str) -> float:
    """Seconds from the end of a session's last connection but one to the last one's beginning, by WhatsApp's clock."""
    earlier, last = list(counts.devices[name].intervals)[-2:]
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
    "kill -9 of a node, ttl 10": _with_nodes(partial(_killed, everything=False), ttl=10.0),
    "kill -9 of a node, ttl 5": _with_nodes(partial(_killed, everything=False), ttl=5.0),
    "kill -9 of a node's whole machine, ttl 10": _with_nodes(partial(_killed, everything=True), ttl=10.0),
    "SIGSTOP for three ttl, then SIGCONT, ttl 10": _with_nodes(_frozen, ttl=10.0),
    "SIGTERM of a node, ttl 10": _with_nodes(_stopped, ttl=10.0),
    "SIGTERM of a node while another one is frozen, ttl 10": _with_nodes(_stopped_beside_frozen, ttl=10.0),
    "rolling restart of all three, ttl 10": _with_nodes(_rolled, ttl=10.0),
    "all three killed and started together, ttl 10": _with_nodes(_claimed, ttl=10.0, is_crowd=True),
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
