"""An owner that wakes up after its session has another one: what it still writes is refused, and counted."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from service.domain import observations as seen
from service.domain.errors import LeaseLost
from service.domain.lease import Announcement, Lease
from service.domain.records import Account, MessageState, Outcome
from service.domain.session import Activate, Deactivate, ProcessStarted
from service.store.database import Database
from service.telemetry.metrics import NodeMetrics
from tests.integration.test_store import HERE, JID, NODE, OTHER_NODE, THERE, TTL, Store, by, code, connected, message

TABLES = ("session", "lease", "pairing", "message", "event", "discarded_identity")


class Woken:
    """The node that was frozen: its stores as service/node/wiring.py wires them, and what they counted."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.lease = lease
        self._registry = CollectorRegistry()
        woken, metrics = Store(store.database), NodeMetrics(self._registry)
        self.owned, self.events, self.leases = woken.owned, woken.events, woken.leases
        self.queue, self.accept = woken.send_queue, woken.accept
        for each in (self.owned, self.events, woken.messages, self.queue, self.leases):
            each.metrics = metrics

    @property
    def repeated(self) -> float | None:
        """Inbound events that came again."""
        return self._registry.get_sample_value("zap_events_repeated_total")

    @property
    def counted(self) -> dict[tuple[str, str], float]:
        """By operation and reason."""
        return {
            (sample.labels["operation"], sample.labels["reason"]): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.name == "zap_stale_writes_total"
        }


@dataclass(frozen=True)
class Write:
    """One of its writes."""

    operation: str
    carry_out: Callable[[Woken], Awaitable[object]]
    raises: bool = True


WRITES = [
    Write("observe", lambda one: one.owned.observe(one.lease, by(seen.Disconnected()), Account(push_name="Old"))),
    Write("show_code", lambda one: one.owned.show_code(one.lease, code(), bytes(32))),
    Write("prepare", lambda one: one.owned.prepare(one.lease)),
    Write("sweep", lambda one: one.owned.delete_discarded_devices(one.lease)),
    Write("append", lambda one: one.events.append(one.lease, [message(1)])),
    Write("accept", lambda one: one.accept(one.lease, "r2", "x@s.whatsapp.net")),
    Write(
        "settle",
        lambda one: one.queue.settle(
            "anna", "r1", one.lease.epoch, Outcome(MessageState.SENT, "WA1", sent=datetime.now(UTC))
        ),
        raises=False,
    ),
    Write("begin_epoch", lambda one: one.leases.begin_epoch("anna", NODE, TTL)),
    Write("release", lambda one: one.leases.release(one.lease), raises=False),
]
"""All that a metric is named for; what is not here are renewals and hand-overs, below."""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url, name="test")
    await database.open()
    store = Store(database)
    await store.execute("CREATE TABLE whatsmeow_device (jid text PRIMARY KEY, identity_key bytea NOT NULL)")
    yield store
    await database.close()


@pytest.fixture
async def woken(store: Store) -> Woken:
    """It was sending a message when it was frozen; another one has owned the session since, and is connected."""
    old = await connected(store)
    await store.accept(old, "r1", "x@s.whatsapp.net", b"f")
    await store.leases.renew(Announcement(THERE, 5), TTL)
    await store.expire()
    new = await store.own(node=OTHER_NODE)
    assert (await store.owned.prepare(new)).jid == JID
    await store.observe(new, ProcessStarted())
    await store.observe(new, seen.Connected(JID, "", "New"), Account(JID, "", "New"))
    return Woken(store, old)


async def everything(store: Store) -> dict[str, list[str]]:
    return {
        table: [row["all"] for row in await store.fetch(f'SELECT t::text AS "all" FROM zap.{table} t ORDER BY 1')]  # noqa: S608 - from above
        for table in TABLES
    }


@pytest.mark.parametrize("write", WRITES, ids=lambda write: str(write.operation))
async def test_a_stale_write_is_refused_and_counted_and_changes_nothing(
    store: Store, woken: Woken, write: Write
) -> None:
    before = await everything(store)
    if write.raises:
        with pytest.raises(LeaseLost):
            await write.carry_out(woken)
    else:
        await write.carry_out(woken)
    assert woken.counted == {(write.operation, "LEASE_LOST"): 1}
    assert await everything(store) == before


async def test_a_stale_renewal_or_hand_over_changes_nothing(store: Store, woken: Woken) -> None:
    before = await everything(store)
    renewal = await woken.leases.renew(Announcement(HERE, 5), TTL)
    assert not renewal.renewed
    assert not renewal.held_up
    assert not await woken.leases.hand_over("anna", NODE, THERE, TTL)
    assert await everything(store) == before


async def test_what_comes_for_a_wish_that_was_withdrawn_is_counted_as_that(store: Store) -> None:
    lease = await connected(store)
    owner = Woken(store, lease)
    await store.wish("anna", Deactivate())
    await store.wish("anna", Activate())
    with pytest.raises(LeaseLost):
        await owner.owned.observe(lease, by(seen.Disconnected()), None)
    assert owner.counted == {("observe", "EPOCH_REVOKED"): 1}


async def test_what_an_owner_may_write_is_not_counted(store: Store) -> None:
    lease = await connected(store)
    owner = Woken(store, lease)
    await owner.accept(lease, "r1", "x@s.whatsapp.net")
    await owner.queue.settle("anna", "r1", lease.epoch, Outcome(MessageState.OUTCOME_UNKNOWN))
    for _ in range(2):
        await owner.events.append(lease, [message(1), message(2)])
    await owner.owned.observe(lease, by(seen.Disconnected()), None)
    assert await owner.leases.release(lease)
    assert not owner.counted
    assert owner.repeated == 2
