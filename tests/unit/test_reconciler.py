"""The reconciler with leases in memory: what it claims, how often, and what it waits for."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast
from uuid import UUID, uuid4

import pytest

from service.bus.wakeups import WakeupHub
from service.ownership import reconciler
from service.ownership.reconciler import Reconciler, Runs
from service.ports import LeaseStore

NODE = uuid4()


class Leases:
    """Every session of the list is due whenever nobody has it."""

    def __init__(self, *due: str) -> None:
        self.due = list(due)
        self.claims: list[str] = []
        self.gone_wrong: list[str] = []
        self.released_all = False

    async def claim(self, incarnation: UUID, node: str, ttl: float, limit: int) -> Sequence[str]:
        claimed, self.due = self.due[:limit], self.due[limit:]
        self.claims += claimed
        return claimed

    async def unwanted(self, incarnation: UUID) -> Sequence[str]:
        return self.gone_wrong

    async def next_due(self, incarnation: UUID) -> float | None:
        return None

    async def release_all(self, incarnation: UUID) -> None:
        self.released_all = True


class Runner:
    """Runs until it is told to end, or fails at once."""

    def __init__(self, session_id: str, leases: Leases, *, fails: bool) -> None:
        self.session_id = session_id
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

    def step_down(self) -> None:
        self._end.set()


class Holdings:
    def __init__(self, make: Callable[[str], Runner]) -> None:
        self._make = make
        self._runners: dict[str, Runner] = {}

    def __len__(self) -> int:
        return len(self._runners)

    def add(self, session_id: str) -> Runs:
        assert session_id not in self._runners, "two runners are two owners"
        runner = self._runners[session_id] = self._make(session_id)
        return runner

    def get(self, session_id: str) -> Runs | None:
        return self._runners.get(session_id)

    def remove(self, session_id: str) -> None:
        del self._runners[session_id]

    def all(self) -> Sequence[Runs]:
        return list(self._runners.values())


def reconciling(leases: Leases, *, fails: bool = False, limit: int = 10) -> tuple[Reconciler, Holdings]:
    holdings = Holdings(lambda session_id: Runner(session_id, leases, fails=fails))
    made = Reconciler(
        cast(LeaseStore, leases),
        holdings,
        WakeupHub(),
        incarnation=NODE,
        node="node",
        ttl=10.0,
        limit=limit,
        rate=1000.0,
    )
    return made, holdings


async def test_no_more_are_claimed_than_there_is_room_for() -> None:
    leases = Leases("a", "b", "c")
    looking, holdings = reconciling(leases, limit=2)
    await looking.look()
    await asyncio.sleep(0)
    assert (len(holdings), leases.claims) == (2, ["a", "b"])
    await looking.drain(5)


async def test_a_session_whose_runner_fails_does_not_use_up_the_pace_of_all() -> None:
    leases = Leases("bad")
    looking, _ = reconciling(leases, fails=True)
    for _ in range(20):
        await looking.look()
        await asyncio.sleep(0.01)
    assert len(leases.claims) == 2, "once, and once more to wait behind the first"
    async with asyncio.timeout(2):
        await looking.drain(30)


async def test_a_session_whose_runner_failed_is_taken_up_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "FAULT_PAUSE", 0.01)
    leases = Leases("bad")
    looking, _ = reconciling(leases, fails=True)
    async with asyncio.timeout(5):
        while len(leases.claims) < 4:
            await looking.look()
            await asyncio.sleep(0.01)
    await looking.drain(5)


async def test_what_is_unwanted_is_told_and_a_drain_waits_for_all_and_releases_the_rest() -> None:
    leases = Leases("a", "b")
    looking, holdings = reconciling(leases)
    await looking.look()
    await asyncio.sleep(0)
    leases.gone_wrong = ["a", "never-heard-of"]
    leases.due = []
    await looking.look()
    await asyncio.sleep(0.01)
    assert holdings.get("a") is None
    await looking.drain(5)
    assert len(holdings) == 0
    assert leases.released_all
