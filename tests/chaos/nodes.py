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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
import psutil

from tests.caller import State
from tests.chaos.events import accounts, books
from tests.chaos.events.consumers import Follower
from tests.chaos.events.falls import Start, running
from tests.chaos.places import TTL, Place
from tests.e2e.cluster import Cluster
from tests.e2e.sql import Sql
from tests.event_log import assert_gapless, judge_log
from tests.eventually import eventually
from tests.judgement import Judgement, judge
from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy
from tests.traffic import Written

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


Strike = Callable[[Place, "Run", float], Awaitable[None]]


async def _kill_process(place: Place, run: "Run", seconds: float) -> None:
    await _kill_one_of(place, run, await asyncio.to_thread(running, [place.node]), seconds)


async def _kill_zygote(place: Place, run: "Run", seconds: float) -> None:
    """And a process right after it, which needs another zygote."""
    processes = await asyncio.to_thread(running, [place.node])
    for zygote in place.node.processes()[1:2]:
        zygote.kill()
        run.report.falls += 1
    await _kill_one_of(place, run, processes, seconds)


async def _kill_one_of(place: Place, run: "Run", processes: Mapping[Start, psutil.Process], seconds: float) -> None:
    if processes:
        victim = run.choose(sorted(processes))
        processes[victim].kill()
        run.report.falls += 1
        await place.node.wait_state(
            victim.session_id, State.STATE_CONNECTED, timeout=COME_BACK, after_epoch=victim.epoch
        )
    await asyncio.sleep(seconds / 10)


async def _kill_node(place: Place, run: "Run", seconds: float) -> None:
    await run.kill(place.node.kill_node())
    await asyncio.sleep(seconds)
    await run.start_again(place)


async def _kill_all(place: Place, run: "Run", seconds: float) -> None:
    await run.kill(place.node.kill_all())
    await asyncio.sleep(seconds)
    await run.start_again(place)


async def _stop(place: Place, run: "Run", seconds: float) -> None:
    if (code := await place.node.stop()) != 0:
        raise AssertionError(f"a node that was asked to stop ended with {code}")
    await asyncio.sleep(seconds)
    await run.start_again(place)


async def _stop_and_kill(place: Place, run: "Run", seconds: float) -> None:
    """In the middle of handing over."""
    stopping = asyncio.create_task(place.node.stop())
    await asyncio.sleep(seconds / 10)
    await run.kill(place.node.kill_all())
    await asyncio.wait((stopping,))
    await run.start_again(place)


async def _stop_and_freeze(place: Place, run: "Run", seconds: float) -> None:
    """In the middle of handing over, too: what it has given is not told of until it goes on."""
    stopping = asyncio.create_task(place.node.stop(timeout=60))
    await asyncio.sleep(seconds / 20)
    with suppress(ProcessLookupError):
        os.kill(place.node.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(place.node.pid, signal.SIGCONT)
    await asyncio.wait((stopping,))
    await run.start_again(place)


async def _stop_and_freeze_heir(place: Place, run: "Run", seconds: float) -> None:
    """In the middle of handing over: what is this one's by then it has not begun, and nobody else can before it wakes
    up or its leases run out."""
    other = run.next_to(place)
    stopping = asyncio.create_task(place.node.stop(timeout=60))
    await asyncio.sleep(seconds / 20)
    os.kill(other.node.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(other.node.pid, signal.SIGCONT)
    if (code := await stopping) != 0:
        raise AssertionError(f"a node that was asked to stop ended with {code}")
    await run.start_again(place)


async def _stop_two(place: Place, run: "Run", seconds: float) -> None:
    """Who would be the heir stops as well."""
    other = run.next_to(place)
    codes = await asyncio.gather(place.node.stop(), other.node.stop())
    if any(codes):
        raise AssertionError(f"nodes that were asked to stop ended with {codes}")
    await asyncio.sleep(seconds / 4)
    await asyncio.gather(run.start_again(place), run.start_again(other))


async def _kill_two(place: Place, run: "Run", seconds: float) -> None:
    """The third one takes everything."""
    other = run.next_to(place)
    await asyncio.gather(run.kill(place.node.kill_node()), run.kill(other.node.kill_node()))
    await asyncio.sleep(seconds)
    await asyncio.gather(run.start_again(place), run.start_again(other))


async def _kill_beside_frozen(place: Place, run: "Run", seconds: float) -> None:
    """Who would take over holds whatever locks it holds: Postgres ends its transactions after 5 s at the latest."""
    other = run.next_to(place)
    os.kill(other.node.pid, signal.SIGSTOP)
    try:
        await run.kill(place.node.kill_node())
        await asyncio.sleep(seconds)
    finally:
        os.kill(other.node.pid, signal.SIGCONT)
    await run.start_again(place)


async def _freeze(place: Place, run: "Run", seconds: float) -> None:
    os.kill(place.node.pid, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    os.kill(place.node.pid, signal.SIGCONT)


def _line(to: str, line: Line) -> Strike:
    async def strike(place: Place, run: "Run", seconds: float) -> None:
        proxy: TcpProxy = getattr(place, to)
        await proxy.set(line)
        await asyncio.sleep(seconds)
        await proxy.set(Line.OPEN)

    return strike


def _peers(line: Line) -> Strike:
    async def strike(place: Place, run: "Run", seconds: float) -> None:
        await place.set_peers(line)
        await asyncio.sleep(seconds)
        await place.set_peers(Line.OPEN)

    return strike


async def _stop_cut_off(place: Place, run: "Run", seconds: float) -> None:
    """It can tell nobody to expect its sessions: it releases them."""
    await place.set_peers(Line.CUT)
    await _stop(place, run, seconds / 4)
    await place.set_peers(Line.OPEN)


OUTLIVED = frozenset(
    {
        *("kill -9 of a session process", "kill -9 of the zygote and a session process"),
        "SIGSTOP",
        *("cut off from Postgres", "silent to Postgres", "cut off from Redis", "silent to Redis"),
        *("cut off from the other nodes", "silent to the other nodes"),
    }
)
"""Strikes that a node's sessions may outlive there. After the others, what is said of one is of before until it has a
later epoch."""
OF_TWO = frozenset({"SIGTERM of two", "kill -9 of two"})
"""Strikes after which the next node's sessions are somebody else's, too."""
STRIKES: Mapping[str, Strike] = {
    "kill -9 of a session process": _kill_process,
    "kill -9 of the zygote and a session process": _kill_zygote,
    "kill -9 of the node": _kill_node,
    "kill -9 of everything": _kill_all,
    "SIGTERM": _stop,
    "SIGTERM, then kill -9 of everything": _stop_and_kill,
    "SIGTERM, then SIGSTOP": _stop_and_freeze,
    "SIGTERM, then SIGSTOP of an heir": _stop_and_freeze_heir,
    "SIGTERM of two": _stop_two,
    "SIGSTOP": _freeze,
    "cut off from Postgres": _line("database", Line.CUT),
    "silent to Postgres": _line("database", Line.SILENT),
    "cut off from Redis": _line("redis", Line.CUT),
    "silent to Redis": _line("redis", Line.SILENT),
    "cut off from the other nodes": _peers(Line.CUT),
    "silent to the other nodes": _peers(Line.SILENT),
    "SIGTERM, cut off from the other nodes": _stop_cut_off,
    "kill -9 of two": _kill_two,
    "kill -9 of the node, another one frozen": _kill_beside_frozen,
}


class Run:
    """One run, by one seed."""

    def __init__(
        self,
        there: Cluster,
        places: list[Place],
        seed: int,
        say: Callable[[str], None],
        strikes: Sequence[str] = tuple(STRIKES),
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
        self._sent: list[str] = []
        self._sender_failed: BaseException | None = None

    async def steps(self, count: int, sql: Sql) -> Report:
        """So many blows, and the judgement."""
        consumer = Follower("a consumer of Watch", [place.node.address for place in self._places])
        async with consumer.following():
            async with self.there.traffic(RATE) as traffic, self._sending():
                for number in range(count):
                    await self._step(number)
                await traffic.reach(2)
            await self._judge_log(sql, traffic.written)
            await self._judge_consumer(sql, consumer, traffic.written)
        await self._judge_sends()
        return self.report

    @asynccontextmanager
    async def _sending(self) -> AsyncIterator[None]:
        """Have a caller send all the time, and keep what ended it before its time."""
        sending = asyncio.create_task(self._send())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
            self._sender_failed = None if sending.cancelled() else sending.exception()

    async def owned_by(self, place: Place) -> list[str]:
        """The sessions of a node, as another one says."""
        name = f"node-{self._places.index(place)}"
        asked = self._another(place)
        return [one for one in self.there.sessions if (await asked.status(one)).owner.node == name]

    async def kill(self, killing: Awaitable[None]) -> None:
        """Count a node or a machine that is killed."""
        self.report.falls += 1
        await killing

    def choose(self, starts: Sequence[Start]) -> Start:
        """Choose a session process by chance."""
        return self._chance.choice(starts)

    def next_to(self, place: Place) -> Place:
        """Not the one that is asked."""
        asked = self._another(place)
        return next(other for other in self._places if other is not place and other.node is not asked)

    async def start_again(self, place: Place) -> None:
        """The node is back."""
        await place.node.start()
        await place.node.wait_ready()

    async def _step(self, number: int) -> None:
        place = await self._place()
        name = self._chance.choice(self._strikes)
        seconds = self._chance.uniform(0.1, 2 * TTL)
        struck = [place, *([self.next_to(place)] if name in OF_TWO else [])]
        owned = [session_id for each in struck for session_id in await self.owned_by(each)]
        words = f"{number}: {name}, node {self._places.index(place)} with {len(owned)} sessions, {seconds:.1f} s"
        self.report.steps.append(words)
        moved = owned if name not in OUTLIVED else []
        await STRIKES[name](place, self, seconds)
        took = await self._all_connected(self._another(place), moved, words)
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

    async def _send(self) -> None:
        """One text after the other, by any node; what is refused is tried again under its request_id."""
        number = 0
        while True:
            number += 1
            session_id = self._chance_of_sender.choice(list(self.there.sessions))
            while True:
                node = self._chance_of_sender.choice(self._places).node
                try:
                    # wait_for may swallow a cancellation that comes with the answer (Python before 3.12).
                    async with asyncio.timeout(30):
                        message = await node.send(
                            session_id, f"+{self.there.friend}", f"answer {number}", f"request-{number}"
                        )
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    self.report.refused += 1
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    # So does gRPC end calls whose channel is closed, as ours are when a node is struck.
                    if (task := asyncio.current_task()) is None or task.cancelling():
                        raise
                    self.report.refused += 1
                else:
                    if message.message_id:
                        self._sent.append(message.message_id)
                    break
            await asyncio.sleep(0.1)

    def _another(self, place: Place) -> ServiceProcess:
        return next(other.node for other in self._places if other is not place)

    async def _judge_log(self, sql: Sql, written: Sequence[Written]) -> None:
        self.report.log = await judge_log(sql, written)
        await assert_gapless(sql)
        if problems := self.report.log.problems:
            raise AssertionError(f"{'; '.join(problems)}: {self.report}")

    async def _judge_consumer(self, sql: Sql, consumer: Follower, written: Sequence[Written]) -> None:
        ends = (await books.read(sql)).ends
        await eventually(lambda: accounts.reached(consumer, ends), timeout=COME_BACK)
        self.report.watched = len(consumer.notes)
        problems = [*accounts.wrong_with(consumer, ends), *judge(written, consumer.by_session).problems]
        if again := accounts.repetitions(consumer.notes):
            problems.append(f"{again} events were watched twice")
        if problems:
            raise AssertionError(f"{'; '.join(problems)}: {self.report}")

    async def _judge_sends(self) -> None:
        if self._sender_failed is not None:
            raise AssertionError(f"no text was sent any more: {self.report}") from self._sender_failed
        inbox = [message.id for message in await self.there.simulator.inbox(self.there.friend)]
        self.report.sent = len(self._sent)
        if missing := set(self._sent) - set(inbox):
            raise AssertionError(f"{len(missing)} messages that were said to be sent have not arrived")
        if len(inbox) != len(set(inbox)):
            raise AssertionError("a message arrived twice")
