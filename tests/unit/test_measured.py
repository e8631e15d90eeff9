"""The measuring ports: they count, and change nothing."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from service.domain.disconnects import Cause
from service.domain.errors import Unavailable
from service.domain.events import Event, StateChanged
from service.domain.lease import Announcement, Lease, Node, Renewal
from service.domain.observations import Connected, Disconnected, Ended, Observed
from service.domain.pace import Lane
from service.domain.session import State
from service.ports import StartOrder
from service.telemetry.measured import MeasuredLeases, MeasuredPool, MeasuredPublisher
from service.telemetry.metrics import NodeMetrics

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HERE = Announcement(Node(uuid4(), "one", "127.0.0.1:1"), 10)


class FakeProcess:
    """It connects or does not, disconnects, and dies."""

    # Passed on as they are; nobody calls them here.
    permit = confirm = request_pairing_code = log_out = None

    def __init__(self, *, connects: bool) -> None:
        self._connects = connects

    async def observations(self) -> AsyncIterator[Sequence[Observed]]:
        if self._connects:
            yield [Observed(Connected("", "", ""), NOW)]
        yield [Observed(Disconnected(), NOW), Observed(Ended(Cause.PROCESS_DIED), NOW)]

    async def kill(self) -> None:
        """Dead at once."""


class FakeNode:
    """Leases, processes and a publisher, as far as they are measured."""

    begin_epoch = hand_over = release_stray = wake = reconcile = None

    def __init__(self) -> None:
        self.away = False
        self.published: list[Event] = []

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        if self.away:
            raise Unavailable("away")
        mine, too, later = (Lease(name, 1, announced.node.incarnation) for name in ("a", "b", "c"))
        return Renewal([mine, too], [later])

    async def start(self, order: StartOrder) -> FakeProcess:
        if self.away:
            raise Unavailable("away")
        return FakeProcess(connects=bool(order.jid))

    def publish(self, events: Sequence[Event]) -> None:
        self.published += events


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> NodeMetrics:
    return NodeMetrics(registry)


async def test_renewals_are_counted_by_result(registry: CollectorRegistry, metrics: NodeMetrics) -> None:
    node: Any = FakeNode()
    leases = MeasuredLeases(node, metrics)
    assert len((await leases.renew(HERE, 10)).renewed) == 2
    node.away = True
    with pytest.raises(Unavailable):
        await leases.renew(HERE, 10)
    for result in ("confirmed", "failed"):
        assert registry.get_sample_value("zap_lease_renewals_total", {"result": result}) == pytest.approx(1)
    assert registry.get_sample_value("zap_leases") == pytest.approx(2)


async def test_processes_are_counted_while_they_run_and_once_when_they_end(
    registry: CollectorRegistry, metrics: NodeMetrics
) -> None:
    node: Any = FakeNode()
    pool = MeasuredPool(node, metrics)
    first = await pool.start(StartOrder("a", 1, "", "", 0))
    second = await pool.start(StartOrder("b", 1, "", "", 0))
    assert registry.get_sample_value("zap_session_processes") == pytest.approx(2)
    assert [type(seen.observation) async for batch in first.observations() for seen in batch] == [Disconnected, Ended]
    await first.kill()
    await second.kill()
    assert registry.get_sample_value("zap_session_processes") == pytest.approx(0)
    for cause in ("PROCESS_DIED", "KILLED"):
        assert registry.get_sample_value("zap_session_process_ends_total", {"cause": cause}) == pytest.approx(1)


async def test_starts_are_counted_once_by_lane_and_what_came_of_them(
    registry: CollectorRegistry, metrics: NodeMetrics
) -> None:
    node: Any = FakeNode()
    pool = MeasuredPool(node, metrics)
    for jid, lane in (("a jid", Lane.CLAIMED), ("a jid", Lane.FALLEN), ("", Lane.FALLEN)):
        process = await pool.start(StartOrder("a", 1, jid, "", 0, lane=lane))
        assert [seen async for seen in process.observations()]
        await process.kill()
    await (await pool.start(StartOrder("a", 1, "", "", 0, lane=Lane.PAIRING))).kill()
    node.away = True
    with pytest.raises(Unavailable):
        await pool.start(StartOrder("a", 1, "", "", 0, lane=Lane.FAILING))
    counted = {
        (sample.labels["lane"], sample.labels["outcome"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "zap_session_starts_total"
    }
    assert counted == {
        ("CLAIMED", "CONNECTED"): 1,
        ("FALLEN", "CONNECTED"): 1,
        ("FALLEN", "PROCESS_DIED"): 1,
        ("PAIRING", "KILLED"): 1,
        ("FAILING", "NO_PROCESS"): 1,
    }


def test_events_are_counted_and_passed_on(registry: CollectorRegistry, metrics: NodeMetrics) -> None:
    node: Any = FakeNode()
    event = Event(1, "a", 1, NOW, StateChanged(State.PAIRING, State.CONNECTED, ""))
    MeasuredPublisher(node, metrics).publish([event])
    assert node.published == [event]
    assert registry.get_sample_value("zap_events_total", {"type": "STATE_CHANGED"}) == pytest.approx(1)


def test_a_number_that_somebody_else_keeps_is_read_when_it_is_asked_for(
    registry: CollectorRegistry, metrics: NodeMetrics
) -> None:
    dropped = [0]
    metrics.watch("zap_events_dropped", "Live events that were dropped.", lambda: dropped[0])
    dropped[0] = 3
    assert registry.get_sample_value("zap_events_dropped") == pytest.approx(3)
