"""The keeper of leases, where the end-to-end tests do not get: answers that were lost, and a database that is slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid4

import pytest

from service.domain.errors import Unavailable
from service.domain.lease import Lease, LeaseTimes
from service.ownership.keeper import Keeper

NODE = uuid4()
TIMES = LeaseTimes(3.0)


class OneStray:
    """ports.LeaseStore that holds a lease nobody works for."""

    def __init__(self, release: Callable[[], Awaitable[None]]) -> None:
        self._release = release
        self.releases = 0

    async def renew(self, incarnation: UUID, ttl: float) -> Sequence[Lease]:
        return [Lease("stray", 1, incarnation)]

    async def release(self, session_id: str, incarnation: UUID) -> None:
        self.releases += 1
        await self._release()


async def refuse() -> None:
    raise Unavailable("the database does not answer")


async def hang() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("release", [refuse, hang])
async def test_a_lease_that_cannot_be_released_does_not_keep_the_others_from_being_renewed(
    release: Callable[[], Awaitable[None]],
) -> None:
    leases = OneStray(release)
    keeper = Keeper(leases, NODE, TIMES, lambda: iter(()))  # type: ignore[arg-type]
    for _ in range(3):
        started = time.monotonic()
        await keeper.renew()
        assert time.monotonic() - started < TIMES.renew_every
    assert leases.releases == 2
