"""Sessions are counted by state and reason: each way to be down for good has a line at once, none is made up."""

import asyncio
import time
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.domain.disconnect_policy import POLICIES
from service.domain.errors import Unavailable
from service.domain.maintenance import SessionCounts
from service.domain.reasons import REASONS
from service.domain.session import State
from service.maintenance import session_census
from service.maintenance.session_census import OTHER, RECOUNT_AGE_S, STALE_AGE_S, Census
from service.telemetry.metrics import MaintenanceMetrics


class Counted:
    """A census whose database has what the test says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._found: SessionCounts | None = None
        self._census = Census(self._read, MaintenanceMetrics(self.registry).sessions)

    async def take(self, counts: Mapping[tuple[str, str], int]) -> None:
        await self.take_all(SessionCounts(counts, 0, 0.0))

    async def take_all(self, found: SessionCounts | None) -> None:
        self._found = found
        await self._census.take(RECOUNT_AGE_S)

    def shown(self, state: str, reason: str = "") -> float | None:
        return self.registry.get_sample_value("zap_sessions", {"state": state, "reason": reason})

    @property
    def lines(self) -> int:
        return len(next(each for each in self.registry.collect() if each.name == "zap_sessions").samples)

    async def _read(self, max_age_s: float) -> SessionCounts | None:
        assert max_age_s == RECOUNT_AGE_S
        return self._found


async def test_a_session_that_is_down_for_good_is_a_step_up_from_nought_and_down_again() -> None:
    counted = Counted()
    await counted.take({("CONNECTED", ""): 3})
    assert (counted.shown("CONNECTED"), counted.shown("LOGGED_OUT", "ACCOUNT_BANNED")) == (3, 0)
    assert counted.shown("SUSPENDED", "TEMPORARILY_BANNED") == 0
    assert counted.shown("FAILED", "STREAM_REPLACED") == 0
    await counted.take({("CONNECTED", ""): 2, ("LOGGED_OUT", "ACCOUNT_BANNED"): 1})
    assert (counted.shown("CONNECTED"), counted.shown("LOGGED_OUT", "ACCOUNT_BANNED")) == (2, 1)
    await counted.take({})
    assert (counted.shown("CONNECTED"), counted.shown("LOGGED_OUT", "ACCOUNT_BANNED")) == (0, 0)


async def test_what_this_release_does_not_know_makes_one_line() -> None:
    counted = Counted()
    await counted.take({("FAILED", f"NEW_{number}"): 1 for number in range(100)} | {(f"NEW_{n}", ""): 1 for n in "ab"})
    assert (counted.shown("FAILED", OTHER), counted.shown(OTHER)) == (100, 2)
    assert counted.lines <= len(POLICIES) + 2
    assert OTHER not in REASONS
    assert OTHER not in {state.value for state in State}


async def test_counts_say_when_they_were_made() -> None:
    counted = Counted()
    await counted.take_all(SessionCounts({("CONNECTED", ""): 3}, 2, 12.0))
    await counted.take_all(None)
    assert (counted.shown("CONNECTED"), counted.registry.get_sample_value("zap_sessions_wanted")) == (3, 2)
    made_at = counted.registry.get_sample_value("zap_sessions_count_time_seconds")
    assert made_at == pytest.approx(time.time() - 12, abs=5)


class Reads:
    """Answers, is away, breaks, and answers again."""

    def __init__(self, age_s: float) -> None:
        counts = SessionCounts({}, 0, age_s)
        self.answers: list[SessionCounts | Exception] = [Unavailable("away"), counts, RuntimeError("no table"), counts]
        self.asked: list[float] = []
        self.is_done = asyncio.Event()

    async def read(self, max_age_s: float) -> SessionCounts:
        self.asked.append(max_age_s)
        if len(self.asked) > len(self.answers):
            self.is_done.set()
            await asyncio.Event().wait()
        answer = self.answers[len(self.asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(("age_s", "warnings"), [(0.0, 0), (STALE_AGE_S + 1, 1)])
async def test_it_counts_first_and_then_takes_what_others_have_counted(
    monkeypatch: pytest.MonkeyPatch, age_s: float, warnings: int
) -> None:
    monkeypatch.setattr(session_census, "READ_INTERVAL_S", 0.01)
    reads = Reads(age_s)
    with capture_logs() as logs:
        running = asyncio.create_task(Census(reads.read, lambda *_: None).run())
        await reads.is_done.wait()
        running.cancel()
    assert reads.asked == [0.0, 0.0, *[RECOUNT_AGE_S] * 3]
    assert len([line for line in logs if line["log_level"] == "warning"]) == warnings, "once, however often it looks"
