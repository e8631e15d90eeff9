"""Where a call that needs a session's owner is carried out."""

from typing import cast
from uuid import UUID, uuid4

import pytest

from service.domain.errors import Unavailable
from service.domain.lease import LeaseOwner, Node
from service.ownership.router import Router
from service.ports.leases import Directory

ME = uuid4()
OTHER = LeaseOwner(Node(uuid4(), "other", "127.0.0.1:2"), 7)


class Database:
    """What the database says."""

    def __init__(self, holder: LeaseOwner | None = None, *, is_away: bool = False) -> None:
        self._holder = holder
        self._is_away = is_away

    async def holder(self, session_id: str) -> LeaseOwner | None:
        if self._is_away:
            raise Unavailable("away")
        return self._holder


def router(database: Database, *here: str, me: UUID = ME) -> Router:
    return Router(cast(Directory, database), me, lambda session_id: session_id in here)


async def test_what_runs_here_is_found_without_asking() -> None:
    assert await router(Database(is_away=True), "anna").remote_owner("anna") is None


async def test_what_another_node_owns_is_there() -> None:
    assert await router(Database(OTHER), "anna").remote_owner("berta") == OTHER


async def test_what_nobody_owns_is_nowhere() -> None:
    assert await router(Database()).remote_owner("anna") is None


async def test_what_is_ours_and_does_not_run_yet_is_not_passed_on_to_ourselves() -> None:
    assert await router(Database(LeaseOwner(Node(ME, "me", "127.0.0.1:1"), 3))).remote_owner("anna") is None


async def test_without_the_database_nobody_knows() -> None:
    with pytest.raises(Unavailable):
        await router(Database(is_away=True)).remote_owner("anna")
