"""Builds every part of a node and connects the parts.

start:  liveness socket and zygote (service/node/serve.py) → embedded servers → database reached → schema → bus
        → leases and reconciler → node listener → gRPC → ready
stop:   the order of service/node/lifecycle.py, then bus, database connections, pool, embedded servers, zygote
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from service.api.grpc.forwarding import Forwarder, OwnershipGuard
from service.api.grpc.node_service import GrpcHandoverPeers
from service.api.grpc.nodes import NodeChannels, NodeListener
from service.api.grpc.server import Core, Server
from service.api.http.pages import HealthAndMetricsServer
from service.api.http.readiness import DatabaseProbe, reasons_not_ready
from service.auth.node_certificates import NodeCertificate
from service.bus.hub import WakeupHub
from service.bus.redis import RedisBus
from service.domain.caller import Caller
from service.domain.events import NewEvent
from service.domain.lease import Announcement, Node
from service.domain.log_positions import ResumeTokenCodec
from service.domain.outage import OutageDetector
from service.eventlog.inbound import PostgresEventLog
from service.eventlog.reader import PostgresLogReader, token_key
from service.maintenance.horizon_monitor import LongTransactionMonitor
from service.maintenance.retention import Retention
from service.maintenance.session_census import Census
from service.messaging.sender import MessageSender
from service.node.config import Settings
from service.node.lifecycle import Service, end
from service.ownership.dead_nodes import DeadNodes
from service.ownership.handover import Handover, HandoverSource, HandoverTarget
from service.ownership.lease_expiry import LeaseExpiryMonitor
from service.ownership.lease_renewer import LeaseRenewer
from service.ownership.rebalancer import Rebalancer
from service.ownership.reconciler import Reconciler
from service.ownership.router import Router
from service.ports import Metrics, Watch
from service.protocol.events import encode_payload, to_json
from service.sessions.registry import RunnerRegistry
from service.sessions.runner import RunnerPorts
from service.sessions.service import SessionService
from service.sessions.start_limiter import StartLimiter
from service.store.database import Database
from service.store.leases import PostgresLeases
from service.store.maintenance import SESSION_SETTINGS as UPKEEP_SETTINGS
from service.store.maintenance import PostgresMaintenance
from service.store.messages import PostgresMessages
from service.store.migrate import index_event_buffer, migrate
from service.store.node_secret import agree_on_secret, fingerprint
from service.store.owned import PostgresOwnedSessions
from service.store.sessions import PostgresSessions
from service.store.stale_backends import StaleBackends
from service.store.startup_checks import check_same_database, reach, refuse_prepared_transactions
from service.telemetry.metrics import NodeMetrics, RpcMetrics, UpkeepMetrics, WatchMetrics
from service.watch.limiter import WatchLimiter
from service.watch.service import WatchService
from service.watch.tailer import LogTailer
from service.wire.liveness import LivenessSocket, is_held
from service.workers.dsn import hosts
from service.workers.pool import Pool, PoolSettings
from service.workers.zygote import ZygoteClient

log = structlog.get_logger(__name__)

DATABASE_CONNECTIONS = 10
"""Connections for calls and session writes; leases, readers, tail and upkeep have separate ones."""
READER_CONNECTIONS = 2
"""Connections for consumers that catch up. They are separate so that catching up delays neither writes nor the tail."""
STALLED_STREAM_FACTOR = 10.0
"""A stream whose consumer takes nothing ends after this multiple of ZAP_WATCH_PATIENCE."""
DATABASE_WAIT_S = 60.0
"""Seconds to wait for a database that does not answer."""


class NotMigrated(Exception):
    """The migration was stopped before it was complete."""


class NoServer(Exception):
    """A setting names no server and no embedded server can be started; the message says why and what to do."""


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
        urls = await _urls(settings, stack)
        await reach(urls.database, "DATABASE_URL", DATABASE_WAIT_S)
        pool = await _pool(settings, urls, stack)
        await migrate(urls.database, partial(_prepare_store, pool, urls))


@dataclass(frozen=True)
class Urls:
    """The servers' URLs, from the settings or of embedded servers."""

    database: str
    whatsapp_database: str
    redis: str


@dataclass(frozen=True)
class Databases:
    """Separate connection pools to one database, so that one use does not wait for another."""

    calls: Database
    renewals: Database
    readers: Database
    tail: Database
    upkeep: Database


async def _wait_unless_stopped(task: "asyncio.Task[Any]", stopping: asyncio.Event) -> None:
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    await end(stop)


async def _urls(settings: Settings, stack: AsyncExitStack) -> Urls:
    """Return the servers' URLs; start an embedded server for each one that is not set."""
    database = _secret(settings.database_url) or await _embedded("DATABASE_URL", settings, stack)
    redis = _secret(settings.redis_url) or await _embedded("REDIS_URL", settings, stack)
    return Urls(database, _secret(settings.whatsapp_database_url) or database, redis)


async def _embedded(setting: str, settings: Settings, stack: AsyncExitStack) -> str:
    """Start or join an embedded server, and return its URL. Raises NoServer."""
    try:
        import dev  # noqa: PLC0415 - only for laptops and tests; the image does not contain it
    except ModuleNotFoundError as error:
        raise NoServer(
            f"{setting} is not set, and this installation has no embedded server (package dev): set {setting}"
        ) from error
    server = (dev.EmbeddedPostgres if setting == "DATABASE_URL" else dev.EmbeddedValkey)(Path(settings.data_dir))
    try:
        await stack.enter_async_context(server)
    except dev.EmbeddedServerError as error:
        raise NoServer(str(error)) from error
    action = "Joined" if server.was_joined else "Started"
    log.info(f"{action} an embedded {server.name}, since {setting} is not set.", port=server.port)  # noqa: G004
    return server.url


def _log_refused(session_id: str, event: NewEvent, error: Exception) -> None:
    cause = type(error).__name__
    log.error(
        "Postgres refuses an inbound event; it is lost.", session_id=session_id, cause=cause, type=event.payload.kind
    )


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _node_secret(settings: Settings) -> str:
    return _secret(settings.node_secret) or _secret(settings.auth_token)


async def _pool(
    settings: Settings,
    urls: Urls,
    stack: AsyncExitStack,
    zygote: ZygoteClient | None = None,
    metrics: Metrics | None = None,
) -> Pool:
    """Return an open pool, which forks session processes."""
    proxy = settings.whatsapp_proxy_url.get_secret_value()
    pool = Pool(PoolSettings(urls.whatsapp_database, proxy, settings.worker_preload), zygote=zygote, metrics=metrics)
    stack.push_async_callback(pool.close)
    await pool.open()
    return pool


async def _prepare_store(pool: Pool, urls: Urls) -> None:
    """Create whatsmeow's tables and the index that this service adds to one of them."""
    await pool.prepare_store()
    await index_event_buffer(urls.whatsapp_database)


async def _open_database(stack: AsyncExitStack, url: str, name: str, size: int, timeouts: dict[str, str]) -> Database:
    database = Database(url, name=name, size=size, timeouts=timeouts)
    await database.open()
    stack.push_async_callback(database.close)
    return database


async def _build(settings: Settings, stack: AsyncExitStack, liveness: LivenessSocket, zygote: ZygoteClient) -> Service:
    """Open connections and build the node in dependency order; the stack closes them in reverse."""
    urls = await _urls(settings, stack)
    await reach(urls.database, "DATABASE_URL", DATABASE_WAIT_S)
    if urls.whatsapp_database != urls.database:
        await reach(urls.whatsapp_database, "ZAP_WHATSAPP_DATABASE_URL", DATABASE_WAIT_S)
        await check_same_database(urls.database, urls.whatsapp_database, "ZAP_WHATSAPP_DATABASE_URL")
    await refuse_prepared_transactions(urls.database, "DATABASE_URL")
    registry = CollectorRegistry()
    metrics = NodeMetrics(registry)
    # The derivation takes 0.1 s, so it runs while the zygote imports.
    deriving = asyncio.create_task(fingerprint(urls.database, _node_secret(settings)))
    pool = await _pool(settings, urls, stack, zygote, metrics)
    secret_fingerprint = await deriving
    await migrate(urls.database, partial(_prepare_store, pool, urls))
    # The first derivation returns None if the schema was older than the table of the fingerprint.
    if found := secret_fingerprint or await fingerprint(urls.database, _node_secret(settings)):
        await agree_on_secret(urls.database, found)

    renew_timeout = f"{settings.lease_times.renew_timeout:.3f}s"
    name = f"zap-service/{settings.node_id}"
    renewal_timeouts = {"statement_timeout": renew_timeout, "lock_timeout": renew_timeout}
    database = await _open_database(stack, urls.database, name, DATABASE_CONNECTIONS, {})
    renewals = await _open_database(stack, urls.database, f"{name}/leases", 1, renewal_timeouts)
    readers = await _open_database(stack, urls.database, f"{name}/watch", READER_CONNECTIONS, {})
    tail = await _open_database(stack, urls.database, f"{name}/tail", 1, {})
    upkeep = await _open_database(stack, urls.database, f"{name}/upkeep", 1, UPKEEP_SETTINGS)
    tokens = ResumeTokenCodec(await token_key(readers))
    hub = WakeupHub()
    bus = RedisBus(urls.redis, hub, lambda event: to_json(event, tokens.write(event.resume_from)), metrics)
    stack.push_async_callback(bus.close)
    # A separate URL for session processes means that a pooler may multiplex their backends.
    stale = StaleBackends(database, is_pooled=urls.whatsapp_database != urls.database)
    databases = Databases(database, renewals, readers, tail, upkeep)
    return _wire(settings, databases, tokens, stale, pool, bus, hub, liveness, registry=registry, metrics=metrics)


def _wire(
    settings: Settings,
    databases: Databases,
    tokens: ResumeTokenCodec,
    stale: StaleBackends,
    pool: Pool,
    bus: RedisBus,
    hub: WakeupHub,
    liveness: LivenessSocket,
    *,
    registry: CollectorRegistry,
    metrics: NodeMetrics,
) -> Service:
    """Build everything that runs on the open connections."""
    database = databases.calls

    def sessions_of(caller: Caller) -> PostgresSessions:
        return PostgresSessions(caller, database, encode_payload)

    times, incarnation = settings.lease_times, liveness.incarnation
    outages = OutageDetector(times.ttl, time.monotonic())
    leases = PostgresLeases(database, databases.renewals, metrics)
    ports = RunnerPorts(
        PostgresOwnedSessions(database, encode_payload, stale, metrics),
        leases,
        PostgresEventLog(database, encode_payload, _log_refused, metrics),
        pool,
        bus,
        times,
        StartLimiter(settings.connects_per_second),
    )
    runners = RunnerRegistry(incarnation, ports)
    reconciler = Reconciler(
        leases,
        runners,
        hub,
        ports.gate,
        outages,
        incarnation=incarnation,
        node=settings.node_id,
        ttl=settings.lease_ttl,
        limit=settings.max_sessions,
    )
    _register_gauges(metrics, bus, runners, reconciler)
    sender = MessageSender(sessions_of, lambda caller: PostgresMessages(caller, database, metrics), runners, metrics)
    watch = _build_watch(settings, databases, tokens, hub, WatchMetrics(registry))
    core = Core(lambda caller: SessionService(sessions_of(caller), bus, hub, runners), sender, watch)
    router = Router(leases, incarnation, lambda session_id: runners.get(session_id) is not None)
    handover_target = HandoverTarget(ports.gate, reconciler)
    server, nodes, channels = _build_servers(settings, core, router, handover_target, incarnation, RpcMetrics(registry))
    announce = partial(_announce, settings, liveness, nodes)
    lease_renewer = LeaseRenewer(leases, announce, times, runners.all, outages, metrics)
    handover = Handover(GrpcHandoverPeers(channels), sender, reconciler)
    rebalancer = Rebalancer(
        incarnation, leases, reconciler, runners.get, handover, metrics.rebalanced, is_on=settings.rebalance
    )
    upkeep, upkeep_metrics = PostgresMaintenance(databases.upkeep), UpkeepMetrics(registry)
    probe = DatabaseProbe(database.ping)
    http_server = HealthAndMetricsServer(
        settings.http_listen, partial(reasons_not_ready, probe, outages, times, lambda: pool.overdue), registry
    )
    return Service(
        bus,
        lease_renewer,
        LeaseExpiryMonitor(times, runners.all),
        reconciler,
        DeadNodes(leases, incarnation, liveness.scope, is_held, hub.reconcile),
        runners,
        HandoverSource(incarnation, leases, handover),
        handover_target,
        rebalancer,
        sender,
        server,
        nodes,
        channels,
        http_server,
        probe,
        Retention(upkeep, upkeep_metrics, events=settings.event_retention, messages=settings.message_retention),
        LongTransactionMonitor(upkeep, upkeep_metrics.horizon),
        Census(upkeep.session_counts, upkeep_metrics.sessions),
        settings.shutdown_grace,
    )


def _build_watch(
    settings: Settings, databases: Databases, tokens: ResumeTokenCodec, hub: WakeupHub, metrics: WatchMetrics
) -> Watch:
    """Build the readers of the event log."""
    tail = LogTailer(PostgresLogReader(databases.tail).read, hub, metrics)
    service = WatchService(PostgresLogReader(databases.readers), tail, tokens, settings.watch_patience)
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
        database_hosts=hosts(url) if (url := _secret(settings.database_url)) else [],
        metrics=metrics,
    )
    server = Server(
        core,
        listen=settings.listen,
        token=_secret(settings.auth_token),
        metrics=metrics,
        elsewhere=Forwarder(router, channels, metrics),
        standstill=STALLED_STREAM_FACTOR * settings.watch_patience,
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
        lambda: reconciler.survey.due + reconciler.survey.silent,
    )
