"""Who holds Watch up is named once it lasts, once; and it is said when it is over."""

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.domain.maintenance import OldestTransaction
from service.maintenance.horizon_monitor import WARN_AFTER_S, LongTransactionMonitor
from service.telemetry.metrics import MaintenanceMetrics
from tests.fakes.log_maintenance import FakeLogMaintenance

HOLDER = OldestTransaction(7, "shop", "psql", 4711, "idle in transaction")
OTHER = OldestTransaction(8, "shop", "psql", 4712, "active")
LABELS = {"database": "shop", "application": "psql", "pid": "4711", "state": "idle in transaction"}


class Watched:
    """A lookout whose looks are a second apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.upkeep = FakeLogMaintenance()
        self._now = 100.0
        metrics = MaintenanceMetrics(self.registry)
        self._lookout = LongTransactionMonitor(self.upkeep, metrics.horizon, lambda: self._now)

    async def look(self, *holders: OldestTransaction | None) -> Sequence[tuple[str, str]]:
        with capture_logs() as logs:
            for holder in holders:
                self.upkeep.holder = holder
                await self._lookout.look()
                self._now += 1.0
        return [(line["log_level"], line["event"]) for line in logs]

    @property
    def age(self) -> float | None:
        return self.registry.get_sample_value("zap_watch_horizon_age_seconds")

    def holds(self, labels: dict[str, str]) -> float | None:
        return self.registry.get_sample_value("zap_watch_horizon_holder", labels)


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_whoever_holds_it_for_long_is_named_once_and_so_is_the_end(watched: Watched) -> None:
    looks = int(WARN_AFTER_S)
    assert await watched.look(*[HOLDER] * looks) == []
    ((level, words),) = await watched.look(*[HOLDER] * 100)
    assert (level, "blocks Watch" in words) == ("warning", True)
    ((level, words),) = await watched.look(None, None)
    assert (level, "Watch continues" in words) == ("info", True)
    # And again, should it come to that.
    assert len(await watched.look(*[OTHER] * 2 * looks)) == 1


async def test_many_that_hold_it_for_a_moment_each_are_nobody_s_worry(watched: Watched) -> None:
    holders = [OldestTransaction(number, "shop", "web", number, "active") for number in range(100)]
    assert await watched.look(*holders) == []
    assert watched.age == 0.0
    holders_now = next(each for each in watched.registry.collect() if each.name == "zap_watch_horizon_holder")
    assert holders_now.samples == []


async def test_the_metrics_name_the_one_that_holds_it_now(watched: Watched) -> None:
    await watched.look(HOLDER, HOLDER, HOLDER)
    assert (watched.age, watched.holds(LABELS)) == (2.0, 1.0)
    # What it does can change while it goes on.
    active = OldestTransaction(HOLDER.xid, "shop", "psql", 4711, "active")
    await watched.look(active)
    assert (watched.age, watched.holds(LABELS), watched.holds(LABELS | {"state": "active"})) == (3.0, None, 1.0)
    await watched.look(None)
    assert (watched.age, watched.holds(LABELS | {"state": "active"})) == (0.0, None)


async def test_one_that_follows_another_is_counted_anew(watched: Watched) -> None:
    await watched.look(HOLDER, HOLDER, OTHER, OTHER)
    assert watched.age == 1.0
    assert watched.holds(LABELS) is None
