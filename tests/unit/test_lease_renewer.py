"""The keeper against leases in memory: what it permits, kills and gives back."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from service.domain.errors import Unavailable
from service.domain.lease import Announcement, Lease, LeaseTimes, Node, Renewal
from service.domain.outage import OutageDetector
from service.ownership.lease_renewer import LeaseRenewer
from service.ports.leases import LeaseStore
from service.ports.metrics import Metrics

NODE = Announcement(Node(uuid4(), "one", "127.0.0.1:1"), 10)
TIMES = LeaseTimes(2.0)


@dataclass
class Session:
    """A runner, as far as its lease is concerned."""

    session_id: str
    safe_until: float
    permits: list[float] = field(default_factory=list)
    is_lost: bool = False

    def permit(self, safe_until: float) -> None:
        self.permits.append(safe_until)

    def lose(self) -> None:
        self.is_lost = True


class Leases:
    """What the database says is this node's; its answers can fail, and be late."""

    def __init__(self, *held: str) -> None:
        self.held = list(held)
        self.held_up: list[str] = []
        self.released: list[str] = []
        self.renewal_fails = False
        self.release_fails = False
        self.release_takes = 0.0

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        if self.renewal_fails:
            raise Unavailable("away")
        renewed, held_up = (
            [Lease(session_id, 1, announced.node.incarnation) for session_id in ids]
            for ids in (self.held, self.held_up)
        )
        return Renewal(renewed, held_up)

    async def release_orphaned_lease(self, lease: Lease) -> None:
        await asyncio.sleep(self.release_takes)
        if self.release_fails:
            raise Unavailable("away")
        self.released.append(lease.session_id)


def keeper(leases: Leases, *sessions: Session, metrics: Metrics | None = None) -> LeaseRenewer:
    return LeaseRenewer(
        cast(LeaseStore, leases),
        lambda: NODE,
        TIMES,
        lambda: sessions,
        OutageDetector(TIMES.ttl, time.monotonic()),
        metrics,
    )


async def test_what_a_renewal_returns_is_permitted_and_the_rest_is_lost() -> None:
    mine, gone, new = Session("mine", 1), Session("gone", 1), Session("new", 0)
    before = time.monotonic()
    await keeper(Leases("mine"), mine, gone, new).renew()
    assert not mine.is_lost
    assert TIMES.safe_until(before) <= mine.permits[0] <= TIMES.safe_until(time.monotonic())
    assert gone.is_lost
    assert not new.is_lost, "it has no epoch yet: its claim may be younger than the answer"


async def test_without_an_answer_nothing_is_permitted_and_nothing_lost() -> None:
    held = Session("held", time.monotonic() + 60)
    leases = Leases("held")
    leases.renewal_fails = True
    await keeper(leases, held).renew()
    assert not held.permits
    assert not held.is_lost


async def test_what_is_held_up_is_neither_permitted_nor_lost_and_told_of_the_second_time() -> None:
    held, other = Session("held", time.monotonic() + 60), Session("other", 1)
    leases = Leases("other")
    leases.held_up = ["held"]
    keeping = keeper(leases, held, other)
    with capture_logs() as logs:
        await keeping.renew()
        assert not logs, "whoever writes to it holds it for a moment"
        await keeping.renew()
    assert [line["session_id"] for line in logs] == ["held"]
    assert not held.permits
    assert not held.is_lost
    assert len(other.permits) == 2
    leases.held, leases.held_up = ["held", "other"], []
    await keeping.renew()
    assert len(held.permits) == 1


async def test_a_stray_that_is_held_up_is_not_released_before_it_can_be() -> None:
    leases = Leases()
    leases.held_up = ["stray"]
    keeping = keeper(leases)
    for _ in range(3):
        await keeping.renew()
    assert leases.released == []
    leases.held, leases.held_up = ["stray"], []
    await keeping.renew()
    await keeping.renew()
    assert leases.released == ["stray"]


async def test_a_lease_that_nobody_works_for_is_released_the_second_time_it_is_seen() -> None:
    leases = Leases("stray")
    keeping = keeper(leases)
    await keeping.renew()
    assert leases.released == []
    await keeping.renew()
    assert leases.released == ["stray"]


@pytest.mark.parametrize(("fails", "takes"), [(True, 0.0), (False, 60.0)])
async def test_a_release_that_fails_or_hangs_does_not_keep_the_renewals_from_going_on(
    fails: bool, takes: float
) -> None:
    leases = Leases("stray")
    leases.release_fails, leases.release_takes = fails, takes
    keeping = keeper(leases)
    await keeping.renew()
    began = time.monotonic()
    await keeping.renew()
    assert time.monotonic() - began < TIMES.renew_every + 1, "the next renewal is due then"
    leases.release_fails, leases.release_takes = False, 0.0
    await keeping.renew()
    assert leases.released == ["stray"]
