"""Builds every part of a node and connects the parts.

start:  liveness socket and zygote (service/node/serve.py) → embedded servers → database reached → schema → bus
        → leases and reconciler → node listener → gRPC → ready
stop:   the order of service/node/lifecycle.py, then bus, database connections, pool, embedded servers, zygote
"""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry

from service.api.grpc.forwarding import Forwarder, OwnershipGuard
from service.api.grpc.node_service import GrpcHandoverPeers
from service.api.grpc.nodes import NodeChannels, NodeListener
from service.api.grpc.server import Server
from service.api.grpc.services import Core
from service.api.http.pages import HealthAndMetricsServer
from service.api.http.readiness import DatabaseProbe, reasons_not_ready
from service.auth.node_certificates import NodeCertificate
from service.bus.redis import RedisBus
from service.domain.caller import Caller
from service.domain.events import NewEvent
from service.domain.lease import Announcement, Node
from service.domain.outage import OutageDetector
from service.eventlog.inbound import PostgresEventLog
from service.eventlog.reader import PostgresLogReader
from service.maintenance.horizon_monitor import LongTransactionMonitor
from service.maintenance.retention import Retention
from service.maintenance.session_census import Census
from service.media.downloads import Downloads
from service.media.http import MediaHttpClient
from service.media.uploads import Uploads
from service.messaging.send_rate import SendLimit
from service.messaging.sender import MessageSender
from service.node.config import Settings
from service.node.connections import (
    DATABASE_WAIT_S,
    Connections,
    check_databases,
    connect,
    open_pool,
    prepare_store,
    server_urls,
)
from service.node.lifecycle import Job, Ownership, Servers, Service, end
from service.ownership.dead_nodes import DeadNodes
from service.ownership.handover import Handover, HandoverSource, HandoverTarget
from service.ownership.lease_expiry import LeaseExpiryMonitor
from service.ownership.lease_renewer import LeaseRenewer
from service.ownership.rebalancer import Rebalancer
from service.ownership.reconciler import Reconciler
from service.ownership.router import Router
from service.ports.eventlog import Watch
from service.protocol.events import encode_payload
from service.sessions.number_checks import NumberChecker
from service.sessions.process_calls import ProcessCalls
from service.sessions.registry import RunnerRegistry
from service.sessions.runner import RunnerPorts
from service.sessions.service import SessionService
from service.sessions.start_limiter import StartLimiter
from service.store.contacts import PostgresContacts
from service.store.database import Database
from service.store.leases import PostgresLeases
from service.store.maintenance import PostgresMaintenance
from service.store.messages import PostgresMessages, PostgresSendQueue
from service.store.migrate import migrate
from service.store.node_secret import agree_on_secret, fingerprint
from service.store.owned import PostgresOwnedSessions
from service.store.sessions import PostgresSessions
from service.store.startup_checks import reach
from service.telemetry.metrics import MaintenanceMetrics, NodeMetrics, RpcMetrics, WatchMetrics
from service.watch.limiter import WatchLimiter
from service.watch.service import WatchService
from service.watch.tailer import LogTailer
from service.wire.liveness import LivenessSocket, is_held
from service.workers.dsn import hosts
from service.workers.zygote import ZygoteClient

log = structlog.get_logger(__name__)

STALLED_STREAM_FACTOR = 10.0
"""A stream whose consumer takes nothing ends after this multiple of ZAP_WATCH_PATIENCE."""


class NotMigrated(Exception):
    """The migration was stopped before it was complete."""


async def serve(settings: Settings, stopping: asyncio.Event, liveness: LivenessSocket, zygote: ZygoteClient) -> None:
    """Run a node until `stopping` is set. The zygote may still be starting."""
    async with AsyncExitStack() as stack:
        building = asyncio.create_task(_build(settings, stack, liveness, zygote))
        # A stop request also ends the wait for a database.
        await _wait_unless_stopped(building, stopping)
        if building.done():
            await building.result().run(stopping)
        else:
            await end(building)


async def migrate_once(settings: Settings, stopping: asyncio.Event) -> None:
    """Migrate the schema, including whatsmeow's tables. Raises NotMigrated if `stopping` is set first."""
    migrating = asyncio.create_task(_migrate(settings))
    await _wait_unless_stopped(migrating, stopping)
    if not migrating.done():
        await end(migrating)
        raise NotMigrated("asked to stop before the schema was brought up to date")
    migrating.result()


async def _migrate(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        urls = await server_urls(settings, stack)
        await reach(urls.database, "DATABASE_URL", DATABASE_WAIT_S)
        pool = await open_pool(settings, urls, stack)
        await migrate(urls.database, partial(prepare_store, pool, urls))


async def _wait_unless_stopped(task: "asyncio.Task[Any]", stopping: asyncio.Event) -> None:
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    await end(stop)


def _log_refused(session_id: str, event: NewEvent, error: Exception) -> None:
    cause = type(error).__name__
    log.error(
        "Postgres refuses an inbound event; it is lost.", session_id=session_id, cause=cause, type=event.payload.kind
    )


def _node_secret(settings: Settings) -> str:
    return settings.node_secret.get_secret_value() or settings.auth_token.get_secret_value()


async def _build(settings: Settings, stack: AsyncExitStack, liveness: LivenessSocket, zygote: ZygoteClient) -> Service:
    """Open connections and build the node in dependency order; the stack closes them in reverse."""
    urls = await server_urls(settings, stack)
    await check_databases(urls)
    registry = CollectorRegistry()
    metrics = NodeMetrics(registry)
    # The derivation takes 0.1 s, so it runs while the zygote imports.
    deriving = asyncio.create_task(fingerprint(urls.database, _node_secret(settings)))
    pool = await open_pool(settings, urls, stack, zygote, metrics)
    secret_fingerprint = await deriving
    await migrate(urls.database, partial(prepare_store, pool, urls))
    # The first derivation returns None if the schema was older than the table of the fingerprint.
    if found := secret_fingerprint or await fingerprint(urls.database, _node_secret(settings)):
        await agree_on_secret(urls.database, found)
    connections = await connect(settings, urls, stack, pool, metrics)
    return _wire(settings, connections, liveness, registry, metrics)


def _wire(
    settings: Settings,
    connections: Connections,
    liveness: LivenessSocket,
    registry: CollectorRegistry,
    metrics: NodeMetrics,
) -> Service:
    """Build everything that runs on the open connections."""
    database, bus, hub = connections.calls, connections.bus, connections.hub
    incarnation, outages = liveness.incarnation, OutageDetector(settings.lease_ttl, time.monotonic())

    def sessions_of(caller: Caller) -> PostgresSessions:
        return PostgresSessions(caller, database, encode_payload)

    leases = PostgresLeases(database, connections.renewals, metrics)
    limiter = StartLimiter(settings.connects_per_second)
    runners = RunnerRegistry(incarnation, _build_runner_ports(settings, connections, leases, limiter, metrics))
    reconciler = Reconciler(
        leases,
        runners,
        hub,
        limiter,
        outages,
        incarnation=incarnation,
        node=settings.node_id,
        ttl=settings.lease_ttl,
        limit=settings.max_sessions,
    )
    sender = MessageSender(
        sessions_of,
        lambda caller: PostgresMessages(caller, database, metrics),
        PostgresSendQueue(database, metrics),
        runners,
        metrics,
        SendLimit(settings.send_rate, settings.send_burst),
    )
    watch = _build_watch(settings, connections, WatchMetrics(registry))
    core = Core(
        lambda caller: SessionService(sessions_of(caller), bus, hub, runners),
        sender,
        watch,
        ProcessCalls(sessions_of, runners),
        lambda caller: PostgresContacts(caller, database),
        NumberChecker(settings.number_checks_per_hour),
        Uploads(sessions_of, runners, settings.media_limits),
        Downloads(
            sessions_of, MediaHttpClient(), settings.media_limits, settings.whatsapp_proxy_url.get_secret_value()
        ),
    )
    router = Router(leases, incarnation, lambda session_id: runners.get(session_id) is not None)
    handover_target = HandoverTarget(limiter, reconciler)
    server, nodes, channels = _build_servers(settings, core, router, handover_target, incarnation, RpcMetrics(registry))
    handover = Handover(GrpcHandoverPeers(channels), sender, reconciler)
    probe = DatabaseProbe(database.ping)
    not_ready = partial(reasons_not_ready, probe, outages, settings.lease_times, lambda: connections.pool.overdue)
    _register_gauges(metrics, bus, runners, reconciler)
    return Service(
        bus,
        runners,
        sender,
        Ownership(
            LeaseRenewer(
                leases,
                partial(_announce, settings, liveness, nodes),
                settings.lease_times,
                runners.all,
                outages,
                metrics,
            ),
            LeaseExpiryMonitor(settings.lease_times, runners.all),
            reconciler,
            DeadNodes(leases, incarnation, liveness.scope, is_held, hub.notify_work),
            HandoverSource(incarnation, leases, handover),
            handover_target,
            Rebalancer(
                incarnation, leases, reconciler, runners.get, handover, metrics.rebalanced, is_on=settings.rebalance
            ),
        ),
        Servers(server, nodes, channels, HealthAndMetricsServer(settings.http_listen, not_ready, registry), probe),
        _build_maintenance(settings, connections.upkeep, MaintenanceMetrics(registry)),
        settings.shutdown_grace,
    )


def _build_runner_ports(
    settings: Settings, connections: Connections, leases: PostgresLeases, limiter: StartLimiter, metrics: NodeMetrics
) -> RunnerPorts:
    """Build what the runners of sessions write to, and what gives them processes."""
    return RunnerPorts(
        PostgresOwnedSessions(connections.calls, encode_payload, connections.stale, metrics),
        leases,
        PostgresEventLog(connections.calls, encode_payload, _log_refused, metrics),
        connections.pool,
        connections.bus,
        settings.lease_times,
        limiter,
    )


def _build_maintenance(settings: Settings, database: Database, metrics: MaintenanceMetrics) -> tuple[Job, ...]:
    """Build the jobs that every node runs beside its sessions."""
    maintenance = PostgresMaintenance(database)
    return (
        Retention(maintenance, metrics, events=settings.event_retention, messages=settings.message_retention),
        LongTransactionMonitor(maintenance, metrics.horizon),
        Census(maintenance.session_counts, metrics.sessions),
    )


def _build_watch(settings: Settings, connections: Connections, metrics: WatchMetrics) -> Watch:
    """Build the readers of the event log."""
    tail = LogTailer(PostgresLogReader(connections.tail).read, connections.hub, metrics)
    reader = PostgresLogReader(connections.readers)
    service = WatchService(reader, tail, connections.tokens, settings.watch_patience)
    return WatchLimiter(service.watch, settings.watch_streams, metrics).watch


def _build_servers(
    settings: Settings, core: Core, router: Router, target: HandoverTarget, incarnation: UUID, metrics: RpcMetrics
) -> tuple[Server, NodeListener, NodeChannels]:
    """Build the server for callers, the listener for other nodes and the channels to them."""
    certificate = NodeCertificate.signed_by(_node_secret(settings))
    channels = NodeChannels(certificate)
    nodes = NodeListener(
        core,
        OwnershipGuard(router, incarnation),
        target,
        incarnation,
        certificate,
        listen=settings.node_listen,
        advertise=settings.node_advertise,
        # An embedded database is on this machine.
        database_hosts=hosts(url.get_secret_value()) if (url := settings.database_url) else [],
        metrics=metrics,
    )
    server = Server(
        core,
        listen=settings.listen,
        token=settings.auth_token.get_secret_value(),
        metrics=metrics,
        remote_calls=Forwarder(router, channels, metrics),
        write_timeout_s=STALLED_STREAM_FACTOR * settings.watch_patience,
    )
    return server, nodes, channels


def _announce(settings: Settings, liveness: LivenessSocket, nodes: NodeListener) -> Announcement:
    """Return what this node announces with each renewal; its address can change."""
    return Announcement(
        Node(liveness.incarnation, settings.node_id, nodes.address),
        settings.max_sessions,
        liveness_scope=liveness.scope,
    )


def _register_gauges(metrics: NodeMetrics, bus: RedisBus, runners: RunnerRegistry, reconciler: Reconciler) -> None:
    """Register the gauges whose values other parts hold."""
    metrics.watch("zap_events_dropped", "Live events not published: Redis away, or not encodable.", lambda: bus.dropped)
    metrics.watch("zap_tasks", "Tasks of the event loop; steady growth is a leak.", lambda: len(asyncio.all_tasks()))
    metrics.watch("zap_sessions_owned", "Sessions that this node owns.", lambda: len(runners))
    metrics.watch("zap_sessions_connected", "Connected sessions of this node.", lambda: runners.connected)
    metrics.watch("zap_sessions_waiting", "Sessions of this node that wait to be started.", lambda: runners.waiting)
    metrics.watch(
        "zap_sessions_unclaimed",
        "Sessions of the whole database without an owner: not claimed yet, or their node is silent.",
        lambda: reconciler.counts.due + reconciler.counts.silent,
    )
