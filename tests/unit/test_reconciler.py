"""The reconciler with leases in memory: what it claims, how often, and what it waits for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from service.bus.hub import WakeupHub
from service.domain import lease
from service.domain.errors import Unavailable
from service.domain.fleet_counts import FleetCounts
from service.domain.outage import OTHERS_RETURN_S, OutageDetector
from service.domain.placement import Candidate
from service.domain.start_scheduler import Lane
from service.ownership import reconciler
from service.ownership.reconciler import Reconciler, SessionRunner
from service.ports.leases import Directory
from service.ports.processes import StartPermit
from service.sessions.start_limiter import StartLimiter
from tests.eventually import eventually

NODE = uuid4()
PATIENCE = 5.0
NO_TTL = 1e6
"""Seconds; no outage is as long."""


class Leases:
    """Every session of the list is due whenever nobody has it."""

    def __init__(self, *due: str) -> None:
        self.due = list(due)
        self.claims: list[str] = []
        self.asked: list[int] = []
        self.gone_wrong: list[str] = []
        self.released_all = False
        self.while_claiming: Callable[[], None] | None = None
        self.fault: Exception | None = None
        self.candidates: Sequence[Candidate] = ()
        self.late = 0
        self.others_missing = False
        self.asked_for_others: list[float] = []
        self.grace_s: list[float] = []

    async def claim(
        self, incarnation: UUID, node: str, ttl: float, limit: int, *, pairings: bool | None, grace_s: float
    ) -> Sequence[str]:
        self.asked.append(limit)
        self.grace_s.append(grace_s)
        if self.fault is not None:
            raise self.fault
        claimed = [session_id for session_id in self.due if session_id.startswith("pairing") is pairings][:limit]
        self.due = [session_id for session_id in self.due if session_id not in claimed]
        self.claims += claimed
        if self.while_claiming is not None:
            self.while_claiming()
        return claimed

    async def sessions_to_stop(self, incarnation: UUID) -> Sequence[str]:
        return self.gone_wrong

    async def fleet_counts(self, incarnation: UUID, grace_s: float) -> FleetCounts:
        pairings = sum(session_id.startswith("pairing") for session_id in self.due)
        return FleetCounts(
            due=len(self.due) - pairings,
            late=self.late,
            pairings=pairings,
            candidates=self.candidates,
        )

    async def others_are_awaited(self, seconds: float) -> bool:
        self.asked_for_others.append(seconds)
        return self.others_missing

    async def release_all(self, incarnation: UUID) -> None:
        self.released_all = True


class Runner:
    """Runs until it is told to end, or fails at once."""

    def __init__(self, session_id: str, leases: Leases, *, fails: bool) -> None:
        self.session_id = session_id
        self.connection: object | None = None
        self._leases = leases
        self._fails = fails
        self._end = asyncio.Event()

    async def run(self) -> None:
        if not self._fails:
            await self._end.wait()
        # Released: due for everybody, ourselves included.
        self._leases.due.append(self.session_id)
        if self._fails:
            raise RuntimeError("a table is missing")

    def unwanted(self) -> None:
        self._end.set()

    def hand_over_or_stop(self) -> None:
        self._end.set()


class Holdings:
    def __init__(self, make: Callable[[str], Runner]) -> None:
        self._make = make
        self._runners: dict[str, Runner] = {}
        self.turns: list[StartPermit] = []

    def __len__(self) -> int:
        return len(self._runners)

    def add(self, session_id: str, turn: StartPermit | None) -> SessionRunner:
        assert session_id not in self._runners, "two runners are two owners"
        assert turn is not None
        assert turn.use()
        self.turns.append(turn)
        runner = self._runners[session_id] = self._make(session_id)
        return runner

    def get(self, session_id: str) -> SessionRunner | None:
        return self._runners.get(session_id)

    def remove(self, session_id: str) -> None:
        del self._runners[session_id]

    def all(self) -> Sequence[SessionRunner]:
        return list(self._runners.values())


@dataclass
class Node:
    """A reconciler that runs, and what it runs on."""

    leases: Leases
    gate: StartLimiter
    holdings: Holdings
    hub: WakeupHub
    reconciler: Reconciler


@asynccontextmanager
async def reconciling(
    leases: Leases,
    *,
    fails: bool = False,
    limit: int = 10,
    rate: float = 1000.0,
    outages: OutageDetector | None = None,
) -> AsyncIterator[Node]:
    outages = outages or OutageDetector(NO_TTL, time.monotonic())
    holdings = Holdings(lambda session_id: Runner(session_id, leases, fails=fails))
    gate, hub = StartLimiter(rate), WakeupHub()
    made = Reconciler(
        cast(Directory, leases), holdings, hub, gate, outages, incarnation=NODE, node="node", ttl=10.0, limit=limit
    )
    running = asyncio.create_task(made.run())
    try:
        yield Node(leases, gate, holdings, hub, made)
    finally:
        running.cancel()
        await asyncio.wait((running,))
        async with asyncio.timeout(PATIENCE):
            await made.drain(PATIENCE)


async def test_no_more_are_claimed_than_there_is_room_for_and_a_full_node_says_so_once() -> None:
    leases = Leases("a", "b", "c", "d")
    with capture_logs() as lines:
        async with reconciling(leases, limit=2) as node:
            await eventually(lambda: len(node.holdings) == 2)
            for _ in range(5):
                await node.reconciler.look()
                await asyncio.sleep(0.01)
            assert [line["sessions"] for line in lines if "ZAP_MAX_SESSIONS" in line["event"]] == [2]
            assert (len(node.holdings), leases.claims) == (2, ["a", "b"])
            # The next one comes when one of these ends.
            leases.gone_wrong = ["a"]
            node.hub.notify_work()
            await eventually(lambda: leases.claims[2:] == ["c"])
            leases.due = []


async def test_no_more_are_claimed_than_can_be_started_and_what_is_not_needed_is_given_back() -> None:
    leases = Leases(*(f"s{number}" for number in range(8)))
    async with reconciling(leases, rate=5.0) as node:
        await eventually(lambda: len(leases.claims) == 5)
        assert len(node.holdings) == 5, "a second's worth at once"
        await eventually(lambda: len(leases.claims) == 8)
        assert sum(leases.asked) <= 8 + len(leases.asked), "as many as there were turns for"
        await eventually(lambda: not any(node.gate._scheduler._lanes.values()))
        leases.due = []
    assert not node.gate._scheduler._held


async def test_a_pairing_does_not_wait_behind_the_restored() -> None:
    leases = Leases(*(f"s{number}" for number in range(100)))
    async with reconciling(leases, limit=1000, rate=5.0) as node:
        await eventually(lambda: len(leases.claims) == 5)
        leases.due.append("pairing-1")
        node.hub.notify_work()
        await eventually(lambda: "pairing-1" in leases.claims)
        assert leases.claims.index("pairing-1") <= 5 + 3, "at most three others have their turns before it"
        await eventually(lambda: Lane.PAIRING in [turn.lane for turn in node.holdings.turns])
        leases.due = []


def owning(mine: int, another_s: int) -> list[Candidate]:
    """This node and another one, with so many sessions."""
    this, other = lease.Node(NODE, "node", "127.0.0.1:1"), lease.Node(uuid4(), "other", "127.0.0.1:2")
    return [Candidate(this, mine, 10), Candidate(other, another_s, 10)]


async def test_what_is_left_to_another_node_costs_no_turn() -> None:
    leases = Leases("a", "b", "pairing-1")
    leases.candidates = owning(5, 0)
    async with reconciling(leases) as node:
        for _ in range(5):
            node.hub.notify_work()
            await asyncio.sleep(0.03)
        assert leases.asked == []
        assert not any(node.gate._scheduler._lanes.values())
        leases.late = 1
        node.hub.notify_work()
        await eventually(lambda: leases.claims == ["a"])
        leases.due = []


async def test_no_more_turns_are_asked_for_than_sessions_are_this_node_s() -> None:
    leases = Leases(*(f"s{number}" for number in range(8)))
    leases.candidates = owning(0, 2)
    async with reconciling(leases):
        await eventually(lambda: leases.asked != [])
        assert leases.asked == [5], "it owns as many as the other then"
        leases.due = []


async def test_what_becomes_due_while_others_are_claimed_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "RECONCILE_INTERVAL_S", 60.0)
    leases = Leases("a")

    def later() -> None:
        leases.while_claiming = None
        leases.due.append("b")

    leases.while_claiming = later
    async with reconciling(leases):
        await eventually(lambda: leases.claims == ["a", "b"])


async def test_a_database_that_is_away_costs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "RECONCILE_INTERVAL_S", 0.01)
    leases = Leases("a")
    leases.fault = Unavailable("away")
    async with reconciling(leases, rate=0.02):
        await eventually(lambda: len(leases.asked) >= 3)
        leases.fault = None
        await eventually(lambda: leases.claims == ["a"])


async def test_a_session_whose_runner_fails_does_not_use_up_the_pace_of_all() -> None:
    leases = Leases("bad")
    async with reconciling(leases, fails=True) as node:
        for _ in range(20):
            node.hub.notify_work()
            await asyncio.sleep(0.03)
        assert len(leases.claims) == 2, "once, and once more to wait behind the first"


async def test_a_session_whose_runner_failed_is_taken_up_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "FAULT_PAUSE_S", 0.01)
    leases = Leases("bad")
    async with reconciling(leases, fails=True):
        await eventually(lambda: len(leases.claims) >= 4)


async def test_what_is_unwanted_is_told_and_a_drain_waits_for_all_and_releases_the_rest() -> None:
    leases = Leases("a", "b")
    async with reconciling(leases) as node:
        await eventually(lambda: len(node.holdings) == 2)
        leases.gone_wrong = ["a", "never-heard-of"]
        node.hub.notify_work()
        await eventually(lambda: leases.claims[2:] == ["a"])
        leases.gone_wrong = []
    assert len(node.holdings) == 0
    assert leases.released_all


def after_an_outage(*, seconds: float, ended_ago: float) -> OutageDetector:
    """What a node with a ttl of 10 s knows, which renewed nothing for so long."""
    now = time.monotonic()
    outages = OutageDetector(10.0, now - ended_ago - seconds)
    outages.renewed(now - ended_ago, now - ended_ago)
    return outages


async def test_while_no_renewal_comes_through_nothing_is_claimed() -> None:
    leases = Leases("a")
    outages = OutageDetector(10.0, time.monotonic() - 6.0)
    async with reconciling(leases, outages=outages) as node:
        for _ in range(3):
            node.hub.notify_work()
            await asyncio.sleep(0.03)
        assert leases.asked == []
        outages.renewed(time.monotonic(), time.monotonic())
        await eventually(lambda: leases.claims == ["a"])


async def test_after_an_outage_the_nodes_that_were_there_before_are_waited_for() -> None:
    leases = Leases("a")
    leases.others_missing = True
    async with reconciling(leases, outages=after_an_outage(seconds=20.0, ended_ago=0.0)):
        await eventually(lambda: len(leases.asked_for_others) >= 3)
        assert leases.asked == []
        assert 20.0 <= leases.asked_for_others[0] < 20.0 + OTHERS_RETURN_S, "heard of since the outage began"
        leases.others_missing = False
        await eventually(lambda: leases.claims == ["a"])
        assert leases.grace_s[0] > 1000, "what is another node's is not late because of the outage"


async def test_who_does_not_come_back_after_an_outage_is_not_waited_for_longer() -> None:
    leases = Leases("a")
    leases.others_missing = True
    async with reconciling(leases, outages=after_an_outage(seconds=20.0, ended_ago=OTHERS_RETURN_S)):
        await eventually(lambda: leases.claims == ["a"])
        assert leases.asked_for_others == []
