"""Runs the parts of a node, and starts and stops them in order.

stop:  not ready → no new claims → sessions are handed over → the others stop → calls end, forwarded ones too → renewals
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
from service.sessions.registry import RunnerRegistry

log = structlog.get_logger(__name__)

HAND_OVER_RESERVE_S = 8.0
"""Seconds of the shutdown grace kept for sessions that no node takes; a process needs less to stop."""
CALLS_GRACE_S = 5.0
"""Seconds that calls have to end when the node stops."""


@dataclass(frozen=True)
class Service:
    """Holds the parts of a node and runs them from start to stop."""

    bus: RedisBus
    lease_renewer: LeaseRenewer
    lease_expiry: LeaseExpiryMonitor
    reconciler: Reconciler
    dead_nodes: DeadNodes
    runners: RunnerRegistry
    handover_source: HandoverSource
    handover_target: HandoverTarget
    rebalancer: Rebalancer
    sender: MessageSender
    server: Server
    nodes: NodeListener
    channels: NodeChannels
    http_server: HealthAndMetricsServer
    probe: DatabaseProbe
    retention: Retention
    horizon_monitor: LongTransactionMonitor
    census: Census
    grace: float
    """Seconds that sessions have to be handed over or to stop."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set or an essential task ends; stop in order and raise that task's error."""
        self.bus.start()
        renewing = asyncio.create_task(self.lease_renewer.run(), name="lease-renewer")
        expiring = asyncio.create_task(self.lease_expiry.run(), name="lease-expiry")
        reconciling = asyncio.create_task(self.reconciler.run(), name="reconciler")
        detecting = asyncio.create_task(self.dead_nodes.run(), name="dead-nodes")
        stop = asyncio.create_task(stopping.wait(), name="stop")
        jobs = (self.retention, self.horizon_monitor, self.census, self.rebalancer)
        background = [asyncio.create_task(job.run()) for job in jobs]
        probing = asyncio.create_task(self.probe.run(), name="probe")
        try:
            await self._start_servers()
            log.info("The node is ready.")
            await asyncio.wait((stop, renewing, expiring, reconciling, detecting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            log.info("The node stops.", asked=stopping.is_set())
            await end(*background, detecting)
            try:
                await self._stop_sessions(reconciling)
            finally:
                # A second signal can interrupt the stop at any point, so every runner is ended before the renewals.
                await end(reconciling)
                await self.reconciler.cancel_all()
                # Session processes need run permits until they have ended.
                await end(renewing, expiring)
                await self._stop_servers_now()
                await end(probing, stop)
        for task in (renewing, expiring, reconciling, detecting):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _start_servers(self) -> None:
        await self.http_server.start()
        await self.nodes.start()
        await self.server.start()
        await self.server.set_ready(ready=True)

    async def _stop_servers_now(self) -> None:
        """Stop all servers without grace; after a second signal they may still be open."""
        await asyncio.gather(self.server.stop(0), self.nodes.stop(0))
        await self.http_server.stop()

    async def _stop_sessions(self, reconciling: "asyncio.Task[None]") -> None:
        """Hand over or stop all sessions and end all calls, each step within its time limit."""
        began = time.monotonic()
        self.handover_target.drain()
        await self.server.drain()
        await end(reconciling)
        await self.lease_renewer.drain()
        # The reserve lets sessions that no node takes stop by themselves.
        seconds = max(0.0, self.grace - HAND_OVER_RESERVE_S)
        # The rebalancer may be handing over one session already.
        remaining = [runner for runner in self.runners.all() if runner.session_id != self.rebalancer.moving]
        await asyncio.gather(self.handover_source.give(remaining, seconds), self.rebalancer.finish(seconds))
        # Messages in flight need their sessions, so they are finished before the sessions stop.
        await self.sender.finish(CALLS_GRACE_S)
        await self.reconciler.drain(max(min(self.grace, HAND_OVER_RESERVE_S), began + self.grace - time.monotonic()))
        await asyncio.gather(self.server.stop(CALLS_GRACE_S), self.nodes.stop(CALLS_GRACE_S))
        await self.channels.close()


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
