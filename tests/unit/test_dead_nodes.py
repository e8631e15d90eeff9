"""When the leases of a node of this machine are ended, and when they are left alone."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID, uuid4

import pytest

from service.domain.errors import Unavailable
from service.ownership import dead_nodes
from service.ownership.dead_nodes import DeadNodes
from service.ports.leases import Directory
from tests.eventually import eventually

HERE, SCOPE = uuid4(), "boot/1:2"
OTHER, THIRD = uuid4(), uuid4()


@dataclass
class Machine:
    """What the database and the kernel say, and what was asked of them."""

    nodes: dict[UUID, str] = field(default_factory=lambda: {OTHER: "other"})
    held: set[UUID] = field(default_factory=set)
    served: set[UUID] = field(default_factory=set)
    leases: int | None = 3
    lists: int = 0
    ended: list[UUID] = field(default_factory=list)
    hints: int = 0
    is_away: bool = False

    async def neighbours(self, incarnation: UUID, scope: str) -> Mapping[UUID, str]:
        assert (incarnation, scope) == (HERE, SCOPE)
        self.lists += 1
        if self.is_away:
            raise Unavailable("away")
        return self.nodes

    async def end_leases(self, dead: UUID) -> int | None:
        if dead in self.served:
            return None
        self.ended.append(dead)
        return self.leases

    def hint(self) -> None:
        self.hints += 1

    def watch(self, scope: str | None = SCOPE) -> DeadNodes:
        return DeadNodes(cast(Directory, self), HERE, scope, self.held.__contains__, self.hint)


async def test_a_node_of_which_nothing_is_left_loses_its_leases_at_once() -> None:
    machine = Machine()
    await machine.watch().look()
    assert (machine.ended, machine.hints) == ([OTHER], 1)


async def test_a_node_of_which_a_process_is_left_keeps_them_until_it_is_gone() -> None:
    machine = Machine(held={OTHER})
    watch = machine.watch()
    for _ in range(3):
        await watch.look()
    assert (machine.ended, machine.hints) == ([], 0)
    machine.held.clear()
    await watch.look()
    assert (machine.ended, machine.lists) == ([OTHER], 1), "the database need not be asked again"


async def test_only_the_dead_one_loses_its_leases() -> None:
    machine = Machine({OTHER: "other", THIRD: "third"}, held={THIRD})
    await machine.watch().look()
    assert machine.ended == [OTHER]


async def test_a_node_that_postgres_still_serves_keeps_them() -> None:
    machine = Machine(served={OTHER})
    watch = machine.watch()
    await watch.look()
    assert (machine.ended, machine.hints) == ([], 0)
    machine.served.clear()
    await watch.look()
    assert (machine.ended, machine.hints) == ([OTHER], 1)


async def test_a_dead_node_is_asked_about_once_until_the_database_names_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine()
    watch = machine.watch()
    for _ in range(3):
        await watch.look()
    assert (machine.ended, machine.lists) == ([OTHER], 1)
    # A claim of the dead node's that was carried out late.
    monkeypatch.setattr(dead_nodes, "LIST_EVERY_S", 0.0)
    await watch.look()
    assert (machine.ended, machine.hints) == ([OTHER, OTHER], 2)


async def test_without_leases_there_is_nothing_to_claim() -> None:
    machine = Machine(leases=0)
    await machine.watch().look()
    assert (machine.ended, machine.hints) == ([OTHER], 0)


async def test_without_a_scope_nobody_is_asked() -> None:
    machine = Machine()
    await machine.watch(scope=None).look()
    assert (machine.lists, machine.ended) == (0, [])


async def test_it_goes_on_when_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_nodes, "LIST_EVERY_S", 0.0)
    machine = Machine(is_away=True)
    running = asyncio.create_task(machine.watch().run())
    await eventually(lambda: machine.lists >= 3, every=0)
    assert (machine.ended, running.done()) == ([], False)
    machine.is_away = False
    await eventually(lambda: machine.ended, every=0)
    running.cancel()
