"""Three nodes on one database, the sessions that they share, and what WhatsApp saw of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import IO

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.event_log import assert_gapless, judge_log
from tests.judgement import Judgement
from tests.scenarios.verdict import absences
from tests.service_process import ServiceProcess
from tests.traffic import IN_GROUP, PERSONAL, Kind, People, Traffic, Written, gather_people

SECRET = {"ZAP_NODE_SECRET": "of-all-nodes-of-this-test"}


@dataclass(frozen=True)
class Cluster:
    """All of it."""

    nodes: list[ServiceProcess]
    simulator: SimulatorControl
    phones: dict[str, str]
    jids: dict[str, str]
    friend: str
    people: dict[tuple[str, ...], People] = field(default_factory=dict)
    """Those that write to these sessions, once they have."""

    @property
    def sessions(self) -> Sequence[str]:
        """Their ids."""
        return list(self.jids)

    @asynccontextmanager
    async def traffic(
        self,
        rate: float,
        *,
        sessions: Sequence[str] = (),
        personal: Sequence[Kind] = PERSONAL,
        in_group: Sequence[Kind] = IN_GROUP,
    ) -> AsyncIterator[Traffic]:
        """Have people write to these sessions, or to all, so many messages a second, until the block ends.

        The friend is one of them, to whom callers write as well: both sides of a conversation write at once.
        """
        phones = {name: self.phones[name] for name in sessions or self.sessions}
        if (people := self.people.get(tuple(phones))) is None:
            people = await gather_people(self.simulator, self.friend, list(phones.values()))
            self.people[tuple(phones)] = people
            for name in phones:
                # Then the friend's conversation with it is an established one.
                await self.nodes[-1].send(name, f"+{self.friend}", "hello", f"hello-{name}")
        async with Traffic(self.simulator, people, phones, rate, personal=personal, in_group=in_group) as traffic:
            yield traffic

    async def all_connected(self, asked: ServiceProcess, timeout: float) -> None:
        """Every session is, as this node says."""
        await asyncio.gather(
            *(asked.wait_state(name, State.STATE_CONNECTED, timeout=timeout) for name in self.sessions)
        )

    async def owned_by(self, node: ServiceProcess) -> list[str]:
        """The sessions of a node, as it says itself."""
        name = f"node-{self.nodes.index(node)}"
        return [session_id for session_id in self.sessions if (await node.status(session_id)).owner.node == name]

    async def an_owner(self) -> tuple[ServiceProcess, list[str]]:
        """The node that has most sessions, and which."""
        owned = [(node, await self.owned_by(node)) for node in self.nodes]
        return max(owned, key=lambda one: len(one[1]))

    async def epochs(self, asked: ServiceProcess) -> dict[str, int]:
        """Of every session, as this node says."""
        return {name: (await asked.status(name)).owner.epoch for name in self.sessions}

    async def came_back(
        self, asked: ServiceProcess, sessions: Sequence[str], epochs: Mapping[str, int], timeout: float
    ) -> None:
        """These sessions are connected, and not by whoever had them when their epochs were these."""
        await asyncio.gather(
            *(
                asked.wait_state(name, State.STATE_CONNECTED, timeout=timeout, after_epoch=epochs[name])
                for name in sessions
            )
        )

    async def gaps(self, since: float) -> list[float]:
        """For how long each session was away, each time, by WhatsApp's own clock; since a moment in Unix seconds."""
        return [away for jid in self.jids.values() for away in absences(await self.simulator.device(jid), since)]

    async def assert_one_owner_at_a_time(self) -> None:
        """No device was connected twice at once, or thrown out by itself."""
        for jid in self.jids.values():
            device = await self.simulator.device(jid)
            assert (device.overlaps, device.replaced, device.most_connections) == (0, 0, 1), device

    async def assert_log_is_whole(self, sql: Sql, written: Sequence[Written]) -> Judgement:
        """Every message is in the log once and in order, and the sequences have no gap."""
        judgement = await judge_log(sql, written)
        assert not judgement.problems, judgement.problems
        await assert_gapless(sql)
        return judgement


@asynccontextmanager
async def cluster(
    environment: Mapping[str, str],
    simulator: SimulatorControl,
    sessions: int,
    nodes: int = 3,
    *,
    on_first: bool = False,
    output: IO[bytes] | None = None,
) -> AsyncIterator[Cluster]:
    """So many nodes, and so many paired sessions, wherever they are; or on the first node, all of them (`on_first`).

    `output`: where the nodes' logs go.
    """
    async with AsyncExitStack() as stack:
        running = [
            ServiceProcess({**environment, **SECRET, "ZAP_NODE_ID": f"node-{number}"}, output=output)
            for number in range(nodes)
        ]
        # Who comes later finds nothing to claim.
        pairing = running[:1] if on_first else running
        for node in pairing:
            await stack.enter_async_context(node)
        there = await with_sessions(running, simulator, sessions, pairing)
        for node in running[len(pairing) :]:
            await stack.enter_async_context(node)
        yield there


async def with_sessions(
    nodes: list[ServiceProcess], simulator: SimulatorControl, sessions: int, pairing: Sequence[ServiceProcess]
) -> Cluster:
    """Pair so many sessions by these nodes in turn."""
    friend = await new_phone(simulator, "Friend")
    phones = {f"s{number}": await new_phone(simulator, f"Owner {number}") for number in range(sessions)}
    jids = {
        name: await pair(pairing[number % len(pairing)], simulator, name, phone)
        for number, (name, phone) in enumerate(phones.items())
    }
    return Cluster(nodes, simulator, phones, jids, friend)
