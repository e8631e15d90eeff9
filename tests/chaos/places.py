"""Three nodes in places of their own: each reaches the servers, and each of the others, by lines that can be cut.

A node says one address to all others. There a door lets everybody in and goes on by the line of whoever calls, so that
a node can be cut off in both directions while the others go on calling each other:

    node 0 ──▶ door of node 1 ──(line 0 ▶ 1)──▶ node 1
    node 2 ──▶        "       ──(line 2 ▶ 1)──▶   "
"""

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psutil

from simulator.control import SimulatorControl
from tests.e2e.cluster import SECRET, Cluster, with_sessions
from tests.service_process import ServiceProcess, free_port
from tests.tcp_proxy import Line, TcpProxy

TTL = 3.0
NODES = 3


@dataclass
class Place:
    """A node, and its lines to the servers, and to and from the other nodes."""

    node: ServiceProcess
    database: TcpProxy
    redis: TcpProxy
    peers: list[TcpProxy]
    """To each of the other nodes, and from it."""

    def calls_from(self, port: int) -> bool:
        """Whether a connection from this port is the node's."""
        try:
            return any(
                connection.laddr.port == port for connection in psutil.Process(self.node.pid).net_connections("tcp")
            )
        except psutil.NoSuchProcess:
            return False

    async def set_peers(self, line: Line) -> None:
        """What becomes of what it says to the other nodes, and they to it."""
        await asyncio.gather(*(peer.set(line) for peer in self.peers))


class Door(TcpProxy):
    """Where other nodes call a node."""

    def __init__(self, way_of: Callable[[int], TcpProxy]) -> None:
        """`way_of`: the line of who calls from a port. Raises ConnectionRefusedError."""
        super().__init__("tcp://nowhere")
        self._way_of = way_of

    @property
    def address(self) -> str:
        """For ZAP_NODE_ADVERTISE."""
        return f"127.0.0.1:{self.port}"

    async def _dial(self, caller: asyncio.StreamWriter) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        way = await asyncio.to_thread(self._way_of, caller.get_extra_info("peername")[1])
        return await asyncio.open_connection("127.0.0.1", way.port)


Ways = Mapping[tuple[int, int], TcpProxy]
"""The line of each caller to each of the others."""


@asynccontextmanager
async def three_places(
    environment: Mapping[str, str], simulator: SimulatorControl, sessions: int
) -> AsyncIterator[tuple[Cluster, list[Place]]]:
    """Three nodes, and paired sessions wherever they are."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(NODES)]
        ways = {
            (caller, called): await stack.enter_async_context(TcpProxy(f"tcp://127.0.0.1:{ports[called]}"))
            for caller, called in itertools.permutations(range(NODES), 2)
        }
        places: list[Place] = []
        for number, port in enumerate(ports):
            door = await stack.enter_async_context(Door(functools.partial(_way, places, ways, number)))
            peers = [way for pair_of, way in ways.items() if number in pair_of]
            settings = {
                **SECRET,
                "ZAP_LEASE_TTL": f"{TTL:g}",
                "ZAP_NODE_ID": f"node-{number}",
                "ZAP_NODE_LISTEN": f"127.0.0.1:{port}",
                "ZAP_NODE_ADVERTISE": door.address,
            }
            places.append(await _place({**environment, **settings}, peers, stack))
        nodes = [place.node for place in places]
        yield await with_sessions(nodes, simulator, sessions, nodes), places


def _way(places: Sequence[Place], ways: Ways, called: int, port: int) -> TcpProxy:
    """The line of whoever calls a node from this port. `places`: all of them, once they are there."""
    for caller, place in enumerate(places):
        if caller != called and place.calls_from(port):
            return ways[caller, called]
    raise ConnectionRefusedError(f"none of the others calls from port {port}")


async def _place(environment: Mapping[str, str], peers: list[TcpProxy], stack: AsyncExitStack) -> Place:
    database = await stack.enter_async_context(TcpProxy(environment["DATABASE_URL"]))
    redis = await stack.enter_async_context(TcpProxy(environment["REDIS_URL"]))
    settings = {**environment, "DATABASE_URL": database.url, "REDIS_URL": redis.url}
    return Place(await stack.enter_async_context(ServiceProcess(settings)), database, redis, peers)
