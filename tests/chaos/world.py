"""A node on an estate, and its paired sessions."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import IO

import asyncpg

from simulator.control import SimulatorControl
from tests.chaos.estate import Estate
from tests.e2e.cluster import Cluster, cluster
from tests.scenarios.verdict import Counts, count
from tests.service_process import ServiceProcess
from tests.traffic import Traffic


@dataclass(frozen=True)
class World:
    """One node; what is counted comes straight from the server, by none of the ways that are disturbed."""

    estate: Estate
    there: Cluster

    @property
    def node(self) -> ServiceProcess:
        """The only one."""
        return self.there.nodes[0]

    async def counts(self) -> Counts:
        """Count now."""
        connection = await asyncpg.connect(self.estate.server.url)
        try:
            return await count(connection, self.there.simulator, self.there.jids)
        finally:
            await connection.close()

    def traffic(self, rate: float) -> AbstractAsyncContextManager[Traffic]:
        """Have people write to the sessions, so many messages a second to all of them together."""
        # The group's messages are half as many as those to one account.
        return self.there.traffic(rate / (len(self.there.sessions) + 0.5))


@asynccontextmanager
async def world(
    estate: Estate, environment: Mapping[str, str], simulator: SimulatorControl, sessions: int, output: IO[bytes]
) -> AsyncIterator[World]:
    """Pair everything on an estate. `environment`: of the node, but for its database. `output`: where its log goes."""
    urls = {"DATABASE_URL": estate.node_url, "ZAP_WHATSAPP_DATABASE_URL": estate.session_url}
    async with cluster({**environment, **urls}, simulator, sessions, nodes=1, output=output) as there:
        yield World(estate, there)
