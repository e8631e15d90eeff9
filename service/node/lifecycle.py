"""Runs the parts of a node, and starts and stops them in order.

stop:  not ready → no new claims → sessions are handed over → the others stop → calls end, forwarded ones too → renewals
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from service.api.grpc.nodes import NodeChannels, NodeListener
from service.api.grpc.server import Server
from service.api.http.pages import HealthAndMetricsServer
from service.api.http.readiness import DatabaseProbe
from service.bus.redis import RedisBus
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


class Job(Protocol):
    """Runs beside the sessions of a node, which do not depend on it."""

    async def run(self) -> None:
        """Run until cancelled."""


@dataclass(frozen=True)
class Ownership:
    """Holds the parts that claim sessions, keep their leases and hand them over."""

    lease_renewer: LeaseRenewer
    lease_expiry: LeaseExpiryMonitor
    reconciler: Reconciler
    dead_nodes: DeadNodes
    handover_source: HandoverSource
    handover_target: HandoverTarget
    rebalancer: Rebalancer


@dataclass(frozen=True)
class Servers:
    """Holds the parts that callers, other nodes and probes connect to."""

    grpc: Server
    nodes: NodeListener
    channels: NodeChannels
    http: HealthAndMetricsServer
    probe: DatabaseProbe

    async def start(self) -> None:
        """Listen, and report ready."""
        await self.http.start()
        await self.nodes.start()
        await self.grpc.start()
        await self.grpc.set_ready(ready=True)

    async def stop_now(self) -> None:
        """Stop all servers without grace; after a second signal they may still be open."""
        await asyncio.gather(self.grpc.stop(0), self.nodes.stop(0))
        await self.http.stop()


@dataclass(frozen=True)
class Service:
    """Holds the parts of a node and runs them from start to stop."""

    bus: RedisBus
    runners: RunnerRegistry
    sender: MessageSender
    ownership: Ownership
    servers: Servers
    maintenance: Sequence[Job]
    grace: float
    """Seconds that sessions have to be handed over or to stop."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set or an essential task ends; stop in order and raise that task's error."""
        owner = self.ownership
        self.bus.start()
        renewing = asyncio.create_task(owner.lease_renewer.run(), name="lease-renewer")
        expiring = asyncio.create_task(owner.lease_expiry.run(), name="lease-expiry")
        reconciling = asyncio.create_task(owner.reconciler.run(), name="reconciler")
        detecting = asyncio.create_task(owner.dead_nodes.run(), name="dead-nodes")
        stop = asyncio.create_task(stopping.wait(), name="stop")
        background = [asyncio.create_task(job.run()) for job in (*self.maintenance, owner.rebalancer, self.sender)]
        probing = asyncio.create_task(self.servers.probe.run(), name="probe")
        try:
            await self.servers.start()
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
                await owner.reconciler.cancel_all()
                # Session processes need run permits until they have ended.
                await end(renewing, expiring)
                await self.servers.stop_now()
                await end(probing, stop)
        for task in (renewing, expiring, reconciling, detecting):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _stop_sessions(self, reconciling: "asyncio.Task[None]") -> None:
        """Hand over or stop all sessions and end all calls, each step within its time limit."""
        owner, servers = self.ownership, self.servers
        began = time.monotonic()
        owner.handover_target.drain()
        await servers.grpc.drain()
        await end(reconciling)
        await owner.lease_renewer.drain()
        # The reserve lets sessions that no node takes stop by themselves.
        seconds = max(0.0, self.grace - HAND_OVER_RESERVE_S)
        # The rebalancer may be handing over one session already.
        remaining = [runner for runner in self.runners.all() if runner.session_id != owner.rebalancer.moving]
        await asyncio.gather(owner.handover_source.give(remaining, seconds), owner.rebalancer.finish(seconds))
        # Messages in flight need their sessions, so they are finished before the sessions stop.
        await self.sender.finish(CALLS_GRACE_S)
        await owner.reconciler.drain(max(min(self.grace, HAND_OVER_RESERVE_S), began + self.grace - time.monotonic()))
        await asyncio.gather(servers.grpc.stop(CALLS_GRACE_S), servers.nodes.stop(CALLS_GRACE_S))
        await servers.channels.close()


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
