"""How often sessions are counted: at first, and then when nobody else has."""

import asyncio
from typing import cast

import pytest

from service.domain.errors import Unavailable
from service.ownership import wanted_count
from service.ownership.wanted_count import FRESH_S, WantedCount
from service.ports import Directory


class Counted:
    """Answers, and is away in between."""

    def __init__(self) -> None:
        self.answers: list[int | Exception] = [3, Unavailable("away"), RuntimeError("a table is missing"), 4]
        self.asked: list[float] = []
        self.is_done = asyncio.Event()

    async def wanted(self, freshness: float) -> int:
        self.asked.append(freshness)
        answer = self.answers.pop(0)
        if not self.answers:
            self.is_done.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_it_counts_first_and_then_takes_what_others_have_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted_count, "LOOK_S", 0.01)
    directory = Counted()
    made = WantedCount(cast("Directory", directory))
    running = asyncio.create_task(made.run())
    await directory.is_done.wait()
    running.cancel()
    assert made.wanted == 4
    assert directory.asked == [0.0, FRESH_S, FRESH_S, FRESH_S]
