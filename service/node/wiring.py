"""The one place that wires everything, and the order in which it starts and stops.

start:  liveness socket and zygote (service/node/serve.py) → embedded servers → database reached → schema → bus
        → leases and reconciler → other nodes → gRPC → ready
stop:   not ready → no new claims → sessions are handed over → the rest step down → calls end, those of other nodes too
        → leases, bus, zygote, database
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
from service.ownership.wanted_count import WantedCount
from service.ports import Metrics, Watch
from service.protocol.events import encode_payload, to_json
from service.sessions.registry import RunnerRegistry
from service.sessions.runner import RunnerPorts
from service.sessions.service import SessionService
from service.sessions.start_limiter import StartLimiter
from service.store.database import Database
from service.store.leases import PostgresLeases
from service.store.maintenance import SESSION_SETTINGS as UPKEEP
from service.store.maintenance import PostgresMaintenance
from service.store.messages import PostgresMessages
from service.store.migrate import index_event_buffer, migrate
from service.store.node_secret import agree_on_secret, fingerprint
from service.store.owned import PostgresOwnedSessions
from service.store.prepared_transactions import refuse_prepared_transactions
from service.store.sessions import PostgresSessions
from service.store.stale_backends import StaleBackends
from service.store.startup_checks import check_same_database, reach
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
"""Of the node itself, one for leases apart."""
READERS = 2
"""Connections for consumers that catch up: they must keep neither sessions from writing nor others from what comes."""
STANDSTILL = 10.0
"""Times the patience with a consumer: for who has not taken anything at all for so long it is at an end."""
DATABASE_WAIT_S = 60.0
"""Seconds to wait for a database that does not answer yet."""


class NotMigrated(Exception):
    """The schema is as it was."""


class NoServer(Exception):
    """A setting names no server, and none can be started in its place; the message says why, and what to do."""


async def serve(settings: Settings, stopping: asyncio.Event, liveness: LivenessSocket, zygote: ZygoteClient) -> None:
    """Run a node until `stopping` is set. The zygote may be starting already."""
    async with AsyncExitStack() as stack:
        building = asyncio.create_task(_build(settings, stack, liveness, zygote))
        # Asked to stop while it waits for a database, it need not wait any longer.
        await _first(building, stopping)
        if building.done():
            await building.result().run(stopping)
        else:
            await end(building)


async def migrate_once(settings: Settings, stopping: asyncio.Event) -> None:
    """Bring the schema up to date, whatsmeow's included. Raises NotMigrated if it is asked to stop before."""
    migrating = asyncio.create_task(_migrate(settings))
    await _first(migrating, stopping)
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
    """Where the servers are: as set, or embedded."""

    database: str
    whatsapp_database: str
    redis: str


@dataclass(frozen=True)
class Databases:
    """Connections to one database, apart by what must not wait for what."""

    calls: Database
    renewals: Database
    readers: Database
    tail: Database
    upkeep: Database


async def _first(task: "asyncio.Task[Any]", stopping: asyncio.Event) -> None:
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
    await end(asked)


async def _urls(settings: Settings, stack: AsyncExitStack) -> Urls:
    """Where the servers are; those that no setting names are started here."""
    database = _secret(settings.database_url) or await _embedded("DATABASE_URL", settings, stack)
    redis = _secret(settings.redis_url) or await _embedded("REDIS_URL", settings, stack)
    return Urls(database, _secret(settings.whatsapp_database_url) or database, redis)


async def _embedded(setting: str, settings: Settings, stack: AsyncExitStack) -> str:
    """Start or join an embedded server, and return its URL. Raises NoServer."""
    try:
        import dev  # noqa: PLC0415 - for laptops and tests: an image has no such package, and need not have it
    except ModuleNotFoundError as error:
        raise NoServer(
            f"{setting} is not set, and this installation has no embedded server (package dev): set {setting}"
        ) from error
    server = (dev.EmbeddedPostgres if setting == "DATABASE_URL" else dev.EmbeddedValkey)(Path(settings.data_dir))
    try:
        await stack.enter_async_context(server)
    except dev.EmbeddedServerError as error:
        raise NoServer(str(error)) from error
    what = "Joined" if server.was_joined else "Started"
    log.info(f"{what} an embedded {server.name}, since {setting} is not set.", port=server.port)  # noqa: G004
    return server.url


def _say_refused(session_id: str, event: NewEvent, error: Exception) -> None:
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
    """Session processes, ready to be forked."""
    proxy = settings.whatsapp_proxy_url.get_secret_value()
    pool = Pool(PoolSettings(urls.whatsapp_database, proxy, settings.worker_preload), zygote=zygote, metrics=metrics)
    stack.push_async_callback(pool.close)
    await pool.open()
    return pool


async def _prepare_store(pool: Pool, urls: Urls) -> None:
    """whatsmeow's tables, and our index on one of them."""
    await pool.prepare_store()
    await index_event_buffer(urls.whatsapp_database)


async def _open(stack: AsyncExitStack, url: str, name: str, size: int, timeouts: dict[str, str]) -> Database:
    database = Database(url, name=name, size=size, timeouts=timeouts)
    await database.open()
    stack.push_async_callback(database.close)
    return database


async def _build(settings: Settings, stack: AsyncExitStack, liveness: LivenessSocket, zygote: ZygoteClient) -> Service:
    """Everything in the order in which it needs each other; the stack ends it in the opposite one."""
    urls = await _urls(settings, stack)
    await reach(urls.database, "DATABASE_URL", DATABASE_WAIT_S)
    if urls.whatsapp_database != urls.database:
        await reach(urls.whatsapp_database, "ZAP_WHATSAPP_DATABASE_URL", DATABASE_WAIT_S)
        await check_same_database(urls.database, urls.whatsapp_database, "ZAP_WHATSAPP_DATABASE_URL")
    await refuse_prepared_transactions(urls.database, "DATABASE_URL")
    registry = CollectorRegistry()
    metrics = NodeMetrics(registry)
    # It takes a tenth of a second, in which the zygote imports.
    deriving = asyncio.create_task(fingerprint(urls.database, _node_secret(settings)))
    pool = await _pool(settings, urls, stack, zygote, metrics)
    mine = await deriving
    await migrate(urls.database, partial(_prepare_store, pool, urls))
    if mine := mine or await fingerprint(urls.database, _node_secret(settings)):
        await agree_on_secret(urls.database, mine)

    quick = f"{settings.lease_times.renew_timeout:.3f}s"
    name = f"zap-service/{settings.node_id}"
    hurry = {"statement_timeout": quick, "lock_timeout": quick}
    database = await _open(stack, urls.database, name, DATABASE_CONNECTIONS, {})
    renewals = await _open(stack, urls.database, f"{name}/leases", 1, hurry)
    readers = await _open(stack, urls.database, f"{name}/watch", READERS, {})
    tail = await _open(stack, urls.database, f"{name}/tail", 1, {})
    upkeep = await _open(stack, urls.database, f"{name}/upkeep", 1, UPKEEP)
    tokens = ResumeTokenCodec(await token_key(readers))
    hub = WakeupHub()
    bus = RedisBus(urls.redis, hub, lambda event: to_json(event, tokens.write(event.resume_from)), metrics)
    stack.push_async_callback(bus.close)
    # A pooler has an address of its own: this node needs connections that stay what they are.
    stragglers = StaleBackends(database, is_pooled=urls.whatsapp_database != urls.database)
    databases = Databases(database, renewals, readers, tail, upkeep)
    return _wire(settings, databases, tokens, stragglers, pool, bus, hub, liveness, registry=registry, metrics=metrics)


def _wire(
    settings: Settings,
    databases: Databases,
    tokens: ResumeTokenCodec,
    stragglers: StaleBackends,
    pool: Pool,
    bus: RedisBus,
    hub: WakeupHub,
    liveness: LivenessSocket,
    *,
    registry: CollectorRegistry,
    metrics: NodeMetrics,
) -> Service:
    """What runs, on what is open."""
    database = databases.calls
    sessions = PostgresSessions(database, encode_payload)
    times, incarnation = settings.lease_times, liveness.incarnation
    outages = OutageDetector(times.ttl, time.monotonic())
    leases = PostgresLeases(database, databases.renewals, metrics)
    ports = RunnerPorts(
        PostgresOwnedSessions(database, encode_payload, stragglers, metrics),
        leases,
        PostgresEventLog(database, encode_payload, _say_refused, metrics),
        pool,
        bus,
        times,
        StartLimiter(settings.connects_per_second),
    )
    roster = RunnerRegistry(incarnation, ports)
    reconciler = Reconciler(
        leases,
        roster,
        hub,
        ports.gate,
        outages,
        incarnation=incarnation,
        node=settings.node_id,
        ttl=settings.lease_ttl,
        limit=settings.max_sessions,
    )
    wanted_count = WantedCount(leases)
    _watch(metrics, bus, roster, reconciler, wanted_count)
    sending = MessageSender(sessions, PostgresMessages(database, metrics), roster, metrics)
    watch = _watching(settings, databases, tokens, hub, WatchMetrics(registry))
    core = Core(SessionService(sessions, ports.publisher, hub, roster), sending, watch)
    router = Router(leases, incarnation, lambda session_id: roster.get(session_id) is not None)
    taker = HandoverTarget(ports.gate, reconciler)
    server, nodes, channels = _doors(settings, core, router, taker, incarnation, RpcMetrics(registry))
    announce = partial(_announcement, settings, liveness, nodes)
    keeper = LeaseRenewer(leases, announce, times, roster.all, outages, metrics)
    hand_over = Handover(GrpcHandoverPeers(channels), sending, reconciler)
    rebalancer = Rebalancer(
        incarnation, leases, reconciler, roster.get, hand_over, metrics.rebalanced, is_on=settings.rebalance
    )
    upkeep, upkeep_metrics = PostgresMaintenance(databases.upkeep), UpkeepMetrics(registry)
    probe = DatabaseProbe(database.ping)
    pages = HealthAndMetricsServer(
        settings.http_listen, partial(reasons_not_ready, probe, outages, times, lambda: pool.overdue), registry
    )
    return Service(
        bus,
        keeper,
        LeaseExpiryMonitor(times, roster.all),
        reconciler,
        DeadNodes(leases, incarnation, liveness.scope, is_held, hub.reconcile),
        roster,
        HandoverSource(incarnation, leases, hand_over),
        taker,
        rebalancer,
        wanted_count,
        sending,
        server,
        nodes,
        channels,
        pages,
        probe,
        Retention(upkeep, upkeep_metrics, events=settings.event_retention, messages=settings.message_retention),
        LongTransactionMonitor(upkeep, upkeep_metrics.horizon),
        Census(upkeep.count_sessions, upkeep_metrics.sessions),
        settings.shutdown_grace,
    )


def _watching(
    settings: Settings, databases: Databases, tokens: ResumeTokenCodec, hub: WakeupHub, metrics: WatchMetrics
) -> Watch:
    """Those who read the event log."""
    tail = LogTailer(PostgresLogReader(databases.tail).read, hub, metrics)
    watching = WatchService(PostgresLogReader(databases.readers), tail, tokens, settings.watch_patience)
    return WatchLimiter(watching.watch, settings.watch_streams, metrics).watch


def _doors(
    settings: Settings, core: Core, router: Router, taker: HandoverTarget, incarnation: UUID, metrics: RpcMetrics
) -> tuple[Server, NodeListener, NodeChannels]:
    """Where callers come in, where other nodes do, and the way to those."""
    certificate = NodeCertificate.signed_by(_node_secret(settings))
    channels = NodeChannels(certificate)
    nodes = NodeListener(
        core,
        OwnershipGuard(router, incarnation),
        taker,
        incarnation,
        certificate,
        listen=settings.node_listen,
        advertise=settings.node_advertise,
        # An embedded one is on this machine.
        database_hosts=hosts(url) if (url := _secret(settings.database_url)) else [],
        metrics=metrics,
    )
    server = Server(
        core,
        listen=settings.listen,
        token=_secret(settings.auth_token),
        metrics=metrics,
        elsewhere=Forwarder(router, channels, metrics),
        standstill=STANDSTILL * settings.watch_patience,
    )
    return server, nodes, channels


def _announcement(settings: Settings, liveness: LivenessSocket, nodes: NodeListener) -> Announcement:
    """What this node says of itself with each renewal: its address can change."""
    return Announcement(
        Node(liveness.incarnation, settings.node_id, nodes.address),
        settings.max_sessions,
        liveness_scope=liveness.scope,
    )


def _watch(
    metrics: NodeMetrics, bus: RedisBus, roster: RunnerRegistry, reconciler: Reconciler, wanted_count: WantedCount
) -> None:
    """Numbers that others keep."""
    metrics.watch("zap_events_dropped", "Live events dropped while Redis was away.", lambda: bus.dropped)
    metrics.watch(
        "zap_tasks", "Tasks of the event loop: more and more of them is a leak.", lambda: len(asyncio.all_tasks())
    )
    metrics.watch("zap_sessions_owned", "SessionService that this node owns.", lambda: len(roster))
    metrics.watch("zap_sessions_connected", "Those of them that are connected.", lambda: roster.connected)
    metrics.watch("zap_sessions_waiting", "Those of them that wait for their turn.", lambda: roster.waiting)
    metrics.watch(
        "zap_sessions_wanted",
        "Paired sessions of the whole database that are to be connected.",
        lambda: wanted_count.wanted,
    )
    metrics.watch(
        "zap_sessions_unclaimed",
        "Those of the whole database that are nobody's: not claimed yet, or of a node that is not heard of.",
        lambda: reconciler.survey.due + reconciler.survey.silent,
    )
