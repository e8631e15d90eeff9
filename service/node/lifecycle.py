"""What runs in a node, and the order in which it starts and stops.

stop:  not ready → no new claims → sessions are handed over → the rest step down → calls end, those of other nodes too
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import structlog

from service.api.grpc.nodes import NodeChannels, NodeListener
from service.api.grpc.server import Server
from service.api.http.pages import HealthAndMetricsServer
from service.api.http.readiness import DatabaseProbe
from service.bus.redis import RedisBus
from service.maintenance.horizon_monitor import LongTransactionMonitor
from service.maintenance.retention import Retention
from service.maintenance.session_census import Census
from service.messaging.sender import MessageSender
from service.ownership.dead_nodes import DeadNodes
from service.ownership.handover import HandoverSource, HandoverTarget
from service.ownership.lease_expiry import LeaseExpiryMonitor
from service.ownership.lease_renewer import LeaseRenewer
from service.ownership.rebalancer import Rebalancer
from service.ownership.reconciler import Reconciler
from service.ownership.wanted_count import WantedCount
from service.sessions.registry import RunnerRegistry

log = structlog.get_logger(__name__)

HAND_OVER_RESERVE_S = 8.0
"""What is kept of a stop's grace for sessions that no node takes: more than a process needs to stop."""
CALLS_GRACE_S = 5.0
"""How long calls have to end when the node stops."""


@dataclass(frozen=True)
class Service:
    """What runs, and the order in which it starts and stops."""

    bus: RedisBus
    keeper: LeaseRenewer
    fence: LeaseExpiryMonitor
    reconciler: Reconciler
    dead_nodes: DeadNodes
    roster: RunnerRegistry
    giver: HandoverSource
    taker: HandoverTarget
    rebalancer: Rebalancer
    wanted_count: WantedCount
    sending: MessageSender
    server: Server
    nodes: NodeListener
    channels: NodeChannels
    pages: HealthAndMetricsServer
    probe: DatabaseProbe
    retention: Retention
    lookout: LongTransactionMonitor
    census: Census
    grace: float
    """Seconds that sessions have to step down."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set or a task that must never end ends; then stop in order."""
        self.bus.start()
        keeping = asyncio.create_task(self.keeper.run(), name="keeper")
        fencing = asyncio.create_task(self.fence.run(), name="fence")
        reconciling = asyncio.create_task(self.reconciler.run(), name="reconciler")
        detecting = asyncio.create_task(self.dead_nodes.run(), name="dead-nodes")
        asked = asyncio.create_task(stopping.wait(), name="stop")
        jobs = (self.retention, self.lookout, self.census, self.rebalancer, self.wanted_count)
        beside = [asyncio.create_task(each.run()) for each in jobs]
        probing = asyncio.create_task(self.probe.run(), name="probe")
        try:
            await self._open_doors()
            log.info("The node is ready.")
            await asyncio.wait((asked, keeping, fencing, reconciling, detecting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            log.info("The node stops.", asked=stopping.is_set())
            await end(*beside, detecting)
            try:
                await self._step_down(reconciling)
            finally:
                # Asked twice, it has come here from anywhere in between: nothing of a session goes on without these.
                await end(reconciling)
                await self.reconciler.cancel_all()
                # Last: what steps down needs its permits until it has.
                await end(keeping, fencing)
                await self._close_doors()
                await end(probing, asked)
        for task in (keeping, fencing, reconciling, detecting):
            # A side task that died stops the service loudly.
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _open_doors(self) -> None:
        await self.pages.start()
        await self.nodes.start()
        await self.server.start()
        await self.server.set_ready(ready=True)

    async def _close_doors(self) -> None:
        """Whoever asked twice has closed none yet."""
        await asyncio.gather(self.server.stop(0), self.nodes.stop(0))
        await self.pages.stop()

    async def _step_down(self, reconciling: "asyncio.Task[None]") -> None:
        """End what goes on, in order, each within its bound."""
        began = time.monotonic()
        self.taker.drain()
        await self.server.drain()
        await end(reconciling)
        await self.keeper.drain()
        # Whatever that takes, those that nobody takes have time to stop by themselves.
        seconds = max(0.0, self.grace - HAND_OVER_RESERVE_S)
        # One may be on its way already, to share sessions out.
        still_here = [one for one in self.roster.all() if one.session_id != self.rebalancer.moving]
        await asyncio.gather(self.giver.give(still_here, seconds), self.rebalancer.finish(seconds))
        # What is being sent needs its sessions.
        await self.sending.finish(CALLS_GRACE_S)
        await self.reconciler.drain(max(min(self.grace, HAND_OVER_RESERVE_S), began + self.grace - time.monotonic()))
        await asyncio.gather(self.server.stop(CALLS_GRACE_S), self.nodes.stop(CALLS_GRACE_S))
        await self.channels.close()


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
