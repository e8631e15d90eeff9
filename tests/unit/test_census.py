"""Sessions are counted by state and reason: each way to be down for good has a line at once, none is made up."""

from prometheus_client import CollectorRegistry

from service.domain.disconnect_policy import POLICIES
from service.domain.reasons import REASONS
from service.domain.session import State
from service.maintenance.session_census import OTHER, Census, Counts
from service.telemetry.metrics import UpkeepMetrics


class Counted:
    """A census whose database has what the test says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counts: Counts = {}
        self._census = Census(self._count, UpkeepMetrics(self.registry).sessions)

    async def take(self, counts: Counts) -> None:
        self._counts = counts
        await self._census.take()

    def shown(self, state: str, reason: str = "") -> float | None:
        return self.registry.get_sample_value("zap_sessions", {"state": state, "reason": reason})

    @property
    def lines(self) -> int:
        return len(next(each for each in self.registry.collect() if each.name == "zap_sessions").samples)

    async def _count(self) -> Counts:
        return self._counts


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
