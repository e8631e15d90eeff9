"""The rebalancer on a fleet in memory: which session it moves, when it moves none, and what a stop does to a move."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from service.domain import rebalance
from service.domain.errors import Unavailable
from service.domain.lease import Node
from service.domain.placement import Candidate
from service.ownership import rebalancer as module
from service.ownership.handover import Handover, HandoverSession
from service.ownership.rebalancer import REFUSED_PAUSE_S, Rebalancer
from tests.eventually import eventually

HERE, THERE = (Node(UUID(int=number), f"node-{number}", f"127.0.0.1:{number}") for number in (1, 2))
PATIENCE = 5.0


@pytest.fixture(autouse=True)
def all_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "CALM_S", 0.0)
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.01)


class Session:
    """Runs until it steps down."""

    def __init__(self, session_id: str, world: "World") -> None:
        self.session_id = session_id
        self.is_running = True
        self.is_handed_over = False
        self._world = world
        self._stopping = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def hand_over_or_stop(self, target: Node | None = None) -> None:
        assert target == THERE
        self._stopping.set()

    async def _run(self) -> None:
        await self._stopping.wait()
        await self._world.stops_take.wait()
        self.is_handed_over = True
        del self._world.sessions[self.session_id]
        self._world.there += 1


class World:
    """This node, with sessions in the order in which they were active last, and another node with none."""

    def __init__(self, *session_ids: str) -> None:
        self.sessions = {session_id: Session(session_id, self) for session_id in session_ids}
        self.there = 0
        self.taken: list[str] = []
        self.paused_once: list[str] = []
        self.sending: set[str] = set()
        self.disconnected: set[str] = set()
        self.is_settled = True
        self.is_away = False
        self.refuses = False
        self.stops_take = asyncio.Event()
        self.stops_take.set()
        self.moved = 0

    async def fleet(self) -> Sequence[Candidate]:
        if self.is_away:
            raise Unavailable("away")
        return [Candidate(HERE, len(self.sessions), 100), Candidate(THERE, self.there, 100)]

    async def idlest(self, incarnation: UUID, limit: int) -> Sequence[str]:
        assert incarnation == HERE.incarnation
        return list(self.sessions)[:limit]

    async def prepare(self, target: Node, session_id: str, timeout: float) -> None:
        if self.refuses:
            raise Unavailable("full by its own count")

    async def accept(self, target: Node, session_id: str) -> None:
        self.taken.append(session_id)

    def is_sending(self, session_id: str) -> bool:
        return session_id in self.sending

    @asynccontextmanager
    async def paused(self, session_id: str, timeout: float) -> AsyncIterator[bool]:
        self.paused_once.append(session_id)
        yield not self.is_sending(session_id)

    def running(self, session_id: str) -> "asyncio.Task[None] | None":
        return self.sessions[session_id].task if session_id in self.sessions else None

    def is_connected(self, session_id: str) -> bool:
        return session_id not in self.disconnected

    def session(self, session_id: str) -> HandoverSession | None:
        return self.sessions.get(session_id)

    def count(self) -> None:
        self.moved += 1

    def rebalancer(self, *, is_on: bool = True) -> Rebalancer:
        everything: Any = self
        hand_over = Handover(everything, everything, everything)
        return Rebalancer(HERE.incarnation, everything, self, self.session, hand_over, self.count, is_on=is_on)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World("idle", "calm", "quick", "busy")
    sessions = list(made.sessions.values())
    yield made
    for session in sessions:
        session.task.cancel()
        with suppress(asyncio.CancelledError):
            await session.task


async def test_the_idlest_go_first_one_after_the_other_until_nodes_are_level(world: World) -> None:
    with capture_logs() as logs:
        await world.rebalancer().share_out()
    assert world.taken == ["idle", "calm"]
    assert world.moved == 2
    told = [line for line in logs if line["event"].startswith("This node owned more sessions")]
    assert [line["sessions"] for line in told] == [2]


async def test_what_sends_or_is_not_connected_is_passed_over(world: World) -> None:
    world.sending, world.disconnected = {"idle"}, {"calm"}
    await world.rebalancer().share_out()
    assert world.taken == ["quick", "busy"]
    assert set(world.paused_once) == {"quick", "busy"}, "nobody noticed that it was looked at"


async def test_without_a_session_that_can_be_moved_none_is(world: World) -> None:
    world.sending = set(world.sessions)
    await world.rebalancer().share_out()
    assert world.taken == world.paused_once == []


async def test_a_node_that_does_not_take_one_is_left_alone_for_a_while(world: World) -> None:
    world.refuses = True
    refused = world.rebalancer()
    await refused.share_out()
    assert world.paused_once == [], "the session has noticed nothing"
    assert refused._pause_s == REFUSED_PAUSE_S


async def test_while_something_goes_on_nothing_is_moved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "CALM_S", 0.05)
    running = asyncio.create_task(world.rebalancer().run())
    world.is_settled = False
    await asyncio.sleep(0.1)
    world.is_settled, world.is_away = True, True
    await asyncio.sleep(0.1)
    assert world.taken == []
    world.is_away = False
    await eventually(lambda: world.taken == ["idle", "calm"])
    running.cancel()
    await asyncio.wait((running,))


async def test_a_node_that_stops_lets_the_move_end_that_it_has_begun(world: World) -> None:
    world.stops_take.clear()
    stopped = world.rebalancer()
    running = asyncio.create_task(stopped.run())
    await eventually(lambda: stopped.moving == "idle")
    running.cancel()
    await asyncio.wait((running,))
    finishing = asyncio.create_task(stopped.finish(PATIENCE))
    await asyncio.sleep(0.01)
    assert not finishing.done()
    world.stops_take.set()
    await finishing
    assert world.taken == ["idle"]
    assert stopped.moving is None
    assert world.moved == 1


async def test_switched_off_it_moves_nothing(world: World) -> None:
    async with asyncio.timeout(PATIENCE):
        await world.rebalancer(is_on=False).run()
    assert world.taken == []
