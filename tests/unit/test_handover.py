"""Handing sessions over: who takes them, in which order things happen, and what is left when something fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID, uuid4

import pytest

from service.domain.errors import Unavailable
from service.domain.handover import HandoverConcurrency
from service.domain.lease import Node
from service.domain.placement import Candidate, select_target
from service.domain.start_scheduler import Lane
from service.ownership import handover
from service.ownership.handover import Handover, HandoverSource, HandoverTarget
from service.ports.leases import Directory
from service.ports.processes import StartPermit

ME = uuid4()
ONE, TWO = (Node(UUID(int=number), f"node-{number}", f"127.0.0.1:{number}") for number in (1, 2))


@pytest.fixture(autouse=True)
async def no_session_outlives_its_test() -> AsyncIterator[None]:
    """asyncio complains of those that do, in whatever test runs when they are collected."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def test_the_one_with_the_fewest_sessions_that_has_room_takes_a_session() -> None:
    assert select_target([Candidate(ONE, 3, 10), Candidate(TWO, 2, 10)], {}) == TWO
    assert select_target([Candidate(ONE, 3, 10), Candidate(TWO, 2, 2)], {}) == ONE
    assert select_target([Candidate(ONE, 3, 3), Candidate(TWO, 2, 2)], {}) is None
    assert select_target([], {}) is None
    assert select_target([Candidate(ONE, 3, 10), Candidate(TWO, 2, 10)], {TWO.incarnation: 2}) == ONE
    assert select_target([Candidate(TWO, 2, 10), Candidate(ONE, 2, 10)], {}) == ONE


class Session:
    """A session to hand over, and the task that it runs in."""

    def __init__(self, world: "World", session_id: str, *, loses_its_lease: bool = False) -> None:
        self.session_id = session_id
        self.is_handed_over = False
        self.is_running = True
        self._world = world
        self._loses = loses_its_lease
        self._stopping = asyncio.Event()
        self._target: Node | None = None
        self.task = asyncio.create_task(self._run())

    def hand_over_or_stop(self, target: Node | None = None) -> None:
        self._world.said.append(f"stop {self.session_id}")
        self._target = target
        self._stopping.set()

    async def _run(self) -> None:
        await self._stopping.wait()
        self.is_handed_over = self._target is not None and not self._loses
        self._world.said.append(f"{'handed' if self.is_handed_over else 'lost'} {self.session_id}")


class World:
    """Everything around a node that stops."""

    def __init__(self, *candidates: Candidate) -> None:
        self.candidates = candidates
        self.refuses: set[Node] = set()
        self.is_away = False
        self.take_fails = False
        self.is_slow = False
        self.look_takes = 0.0
        self.arrival_takes = 0.0
        self.said: list[str] = []
        self.sessions: dict[str, Session] = {}
        self.room = 10
        self.taken: list[tuple[str, StartPermit | None]] = []
        self.connected: set[str] = set()
        self.sending: set[str] = set()

    async def targets(self, incarnation: UUID) -> Sequence[Candidate]:
        assert incarnation == ME
        await asyncio.sleep(self.look_takes)
        if self.is_away:
            raise Unavailable("away")
        return self.candidates

    async def prepare(self, target: Node, session_id: str, timeout: float) -> None:
        assert 0 < timeout <= 60
        if self.is_slow:
            await asyncio.sleep(60)
        if target in self.refuses:
            raise Unavailable("no room")
        self.said.append(f"{target.name} expects {session_id}")

    def is_sending(self, session_id: str) -> bool:
        return session_id in self.sending

    @asynccontextmanager
    async def paused(self, session_id: str, timeout: float) -> AsyncIterator[bool]:
        self.said.append(f"pause {session_id}")
        yield not self.is_sending(session_id)
        self.said.append(f"resume {session_id}")

    def running(self, session_id: str) -> "asyncio.Task[None] | None":
        return self.sessions[session_id].task if session_id in self.sessions else None

    def is_connected(self, session_id: str) -> bool:
        return session_id in self.connected

    def take(self, session_id: str, turn: StartPermit | None) -> None:
        self.taken.append((session_id, turn))

    async def accept(self, target: Node, session_id: str) -> None:
        if self.take_fails:
            raise Unavailable("gone")
        await asyncio.sleep(self.arrival_takes)
        self.said.append(f"{target.name} takes {session_id}")

    def most_on_their_way(self) -> int:
        on_their_way, most = 0, 0
        for words in self.said:
            on_their_way += ("expects" in words) - ("takes" in words)
            most = max(most, on_their_way)
        return most

    def giver(self) -> HandoverSource:
        return HandoverSource(ME, cast(Directory, self), self.hand_over())

    def hand_over(self) -> Handover:
        return Handover(self, self, self)

    def own(self, session_id: str, *, loses_its_lease: bool = False) -> Session:
        session = self.sessions[session_id] = Session(self, session_id, loses_its_lease=loses_its_lease)
        return session


async def test_a_session_is_expected_before_it_is_stopped_and_told_of_after_it_is_dead() -> None:
    world = World(Candidate(ONE, 0, 5))
    await world.giver().give([world.own("anna")], 5)
    assert world.said == [
        "node-1 expects anna",
        "pause anna",
        "stop anna",
        "handed anna",
        "resume anna",
        "node-1 takes anna",
    ]


async def test_many_are_spread_over_those_that_go_on() -> None:
    world = World(Candidate(ONE, 0, 5), Candidate(TWO, 1, 5))
    await world.giver().give([world.own(f"s{number}") for number in range(9)], 5)
    assert sum("node-1 takes" in words for words in world.said) == 5
    assert sum("node-2 takes" in words for words in world.said) == 4


async def test_a_few_are_on_their_way_at_a_time_so_that_each_is_away_for_its_own_stop_and_start() -> None:
    world = World(Candidate(ONE, 0, 50), Candidate(TWO, 0, 50))
    sessions = [world.own(f"s{number}") for number in range(20)]
    await world.giver().give(sessions, 60)
    assert world.most_on_their_way() == 2 * handover.TRANSFERS_PER_TARGET
    assert all(session.is_handed_over for session in sessions)


def test_as_few_go_on_at_a_time_as_there_is_time_for() -> None:
    concurrency = HandoverConcurrency(2)
    # Nobody knows yet how long one takes.
    assert concurrency.needed(200, 20.0) == 2
    concurrency.took(0.3)
    concurrency.took(0.5)
    assert concurrency.needed(40, 20.0) == 2
    assert concurrency.needed(200, 20.0) == 8
    assert concurrency.needed(10, 1.0) == 8
    assert concurrency.needed(1, 0.01) == 80


async def test_more_are_on_their_way_if_there_is_little_time() -> None:
    world = World(Candidate(ONE, 0, 50))
    world.arrival_takes = 0.1
    sessions = [world.own(f"s{number}") for number in range(30)]
    await world.giver().give(sessions, 1.0)
    assert all(session.is_handed_over for session in sessions)
    assert world.said[:2] == ["node-1 expects s0", "pause s0"]
    assert 5 <= world.most_on_their_way() < 30


async def test_who_does_not_take_it_is_passed_over_and_without_anybody_it_is_left_running() -> None:
    world = World(Candidate(ONE, 0, 5), Candidate(TWO, 1, 5))
    world.refuses = {ONE}
    await world.giver().give([world.own("anna")], 5)
    assert "node-2 takes anna" in world.said
    world.refuses = {ONE, TWO}
    world.said.clear()
    await world.giver().give([world.own("berta")], 5)
    assert world.said == []
    world.is_away = True
    await world.giver().give([world.own("clara")], 5)
    assert world.said == []


async def test_of_a_lease_that_was_lost_nobody_is_told() -> None:
    world = World(Candidate(ONE, 0, 5))
    await world.giver().give([world.own("anna", loses_its_lease=True)], 5)
    assert world.said[-2:] == ["lost anna", "resume anna"]


@pytest.mark.parametrize("stops", [True, False])
async def test_only_a_node_that_stops_stops_a_session_that_is_still_sending(stops: bool) -> None:
    world = World(Candidate(ONE, 0, 5))
    world.sending = {"anna"}
    anna = world.own("anna")
    assert await world.hand_over().carry_out(anna, ONE, even_while_sending=stops) is stops
    assert ("stop anna" in world.said) is stops
    assert "resume anna" in world.said


async def test_an_heir_that_is_gone_by_then_holds_up_nobody() -> None:
    world = World(Candidate(ONE, 0, 5))
    world.take_fails = True
    await world.giver().give([world.own("anna"), world.own("berta")], 5)
    assert {"handed anna", "handed berta"} <= set(world.said)


async def test_what_cannot_be_handed_over_in_time_is_left() -> None:
    world = World(Candidate(ONE, 0, 5))
    world.is_slow = True
    slow = world.own("anna")
    await asyncio.wait_for(world.giver().give([slow], 0.1), 5)
    assert world.said == []


async def test_the_look_for_heirs_is_part_of_the_time_that_there_is() -> None:
    world = World(Candidate(ONE, 0, 5))
    world.is_slow, world.look_takes = True, 1.2
    slow = world.own("anna")
    began = asyncio.get_running_loop().time()
    await world.giver().give([slow], 1.4)
    assert asyncio.get_running_loop().time() - began < 2.4


async def test_what_waits_for_its_next_attempt_is_not_handed_over() -> None:
    world = World(Candidate(ONE, 0, 5))
    waiting = world.own("anna")
    waiting.is_running = False
    await world.giver().give([waiting], 5)
    assert world.said == []


class OneTurn:
    """A turn, and what became of it."""

    def __init__(self) -> None:
        self.lane = Lane.RESTART
        self.is_back = False

    def use(self) -> bool:
        return True

    def give_back(self) -> None:
        self.is_back = True


class Gate:
    """Grants at once."""

    def __init__(self) -> None:
        self.granted: list[OneTurn] = []

    async def acquire(self, lane: Lane, wants: int) -> Sequence[StartPermit]:
        self.granted.append(OneTurn())
        return [self.granted[-1]]


async def test_what_is_expected_is_started_on_the_turn_that_was_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world, gate = World(), Gate()
    taker = HandoverTarget(gate, world)
    await taker.prepare("anna")
    await taker.accept("anna")
    await taker.accept("berta")
    assert world.taken == [("anna", gate.granted[0]), ("berta", None)]
    # Asked again: one turn is enough.
    await taker.prepare("clara")
    await taker.prepare("clara")
    assert gate.granted[1].is_back
    # And what never comes is not kept for ever.
    monkeypatch.setattr(handover, "PERMIT_TTL_S", 0.0)
    await taker.prepare("dora")
    assert gate.granted[2].is_back


async def test_who_takes_a_session_says_so_when_it_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    taker = HandoverTarget(Gate(), world)
    world.own("anna")
    taking = asyncio.create_task(taker.accept("anna"))
    await asyncio.sleep(0.1)
    assert (world.taken, taking.done()) == ([("anna", None)], False)
    world.connected.add("anna")
    await asyncio.wait_for(taking, 1)
    # Nor is anybody kept waiting by one that was given up, or that cannot be connected.
    await asyncio.wait_for(taker.accept("berta"), 1)
    monkeypatch.setattr(handover, "CONNECT_WAIT_S", 0.1)
    world.own("clara")
    await asyncio.wait_for(taker.accept("clara"), 1)


async def test_a_node_that_is_not_done_with_a_session_does_not_take_it_again() -> None:
    world, gate = World(), Gate()
    taker = HandoverTarget(gate, world)
    # Lost a while ago, and its process is not seen dead yet: nothing could be started here.
    world.own("anna")
    with pytest.raises(Unavailable) as busy:
        await taker.prepare("anna")
    assert busy.value.reason == "NODE_NOT_DONE"
    assert gate.granted == []


async def test_a_node_that_is_full_or_stops_takes_nothing() -> None:
    world, gate = World(), Gate()
    world.room = 1
    taker = HandoverTarget(gate, world)
    await taker.prepare("anna")
    with pytest.raises(Unavailable) as full:
        await taker.prepare("berta")
    assert full.value.reason == "NODE_FULL"
    # Asked again, for what it has room for: the answer was lost.
    await taker.prepare("anna")
    taker.drain()
    with pytest.raises(Unavailable) as draining:
        await taker.prepare("anna")
    assert draining.value.reason == "NODE_DRAINING"
