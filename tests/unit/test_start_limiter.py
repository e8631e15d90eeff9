"""The gate on a real event loop: it lets through at its rate, and what nobody takes is not lost."""

import asyncio
import time

import pytest

from service.domain import start_scheduler
from service.domain.start_scheduler import Lane
from service.sessions.start_limiter import StartLimiter

PATIENCE = 5.0


def assert_idle(gate: StartLimiter) -> None:
    assert not any(gate._scheduler._lanes.values())
    assert not gate._scheduler._held
    assert not gate._waiters


async def test_it_lets_through_a_seconds_worth_at_once_and_then_at_its_rate() -> None:
    gate = StartLimiter(50.0)
    began = time.monotonic()

    async def start() -> float:
        (turn,) = await gate.acquire(Lane.RESTART, 1)
        assert turn.use()
        return time.monotonic() - began

    starts = sorted(await asyncio.gather(*(start() for _ in range(100))))
    assert starts[49] < starts[50]
    for number, moment in enumerate(starts):
        assert number + 1 <= 50 + moment * 50 + 1, "never faster"
    assert starts[-1] < 1.0 + PATIENCE
    assert_idle(gate)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
async def test_chance_makes_a_turn_late_and_never_early(chance: float) -> None:
    gate = StartLimiter(10.0, chance=lambda: chance)
    for turn in await gate.acquire(Lane.RESTART, 10):
        turn.use()
    began = time.monotonic()
    (turn,) = await gate.acquire(Lane.RESTART, 1)
    assert time.monotonic() - began >= 0.1 + 0.05 * chance - 0.02
    turn.give_back()
    assert_idle(gate)


async def test_as_many_turns_as_there_are_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_scheduler, "PERMIT_TTL_S", 0.3)
    gate = StartLimiter(5.0)
    assert len(await gate.acquire(Lane.CLAIM, 3)) == 3
    assert len(await gate.acquire(Lane.CLAIM, 100)) == 2
    # All five are held, and nobody uses them: they are void at last, or nobody here could ever start anything.
    async with asyncio.timeout(PATIENCE):
        for turn in await gate.acquire(Lane.CLAIM, 100):
            turn.give_back()


async def test_who_is_cancelled_leaves_nothing_behind_even_with_a_turn_on_its_way() -> None:
    gate = StartLimiter(2.0)
    held = await gate.acquire(Lane.RESTART, 2)
    waiting = [asyncio.create_task(gate.acquire(Lane.RESTART, 1)) for _ in range(5)]
    await asyncio.sleep(0.01)
    for turn in held:
        turn.give_back()
    # Two of them have a turn now, and have not run since.
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    assert_idle(gate)
    assert len(await gate.acquire(Lane.RESTART, 2)) == 2


async def test_a_place_that_is_left_ends_the_wait_without_a_turn() -> None:
    gate = StartLimiter(0.1)
    (only,) = await gate.acquire(Lane.RESTART, 1)
    with gate.join(Lane.RESTART) as waiter:
        waiting = asyncio.create_task(waiter.permits())
        await asyncio.sleep(0.01)
        waiter.leave()
        assert await waiting == []
    only.give_back()
    only.give_back()
    assert not only.use()
    assert_idle(gate)
