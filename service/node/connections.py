"""Opens what a node needs before it is wired: its servers, the pool of session processes, and the connections."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import SecretStr

from service.bus.hub import WakeupHub
from service.bus.redis import RedisBus
from service.domain.log_positions import ResumeTokenCodec
from service.eventlog.reader import token_key
from service.node.config import Settings
from service.ports.metrics import Metrics
from service.protocol.events import to_json
from service.store.database import Database
from service.store.maintenance import SESSION_SETTINGS as UPKEEP_SETTINGS
from service.store.migrate import index_event_buffer
from service.store.stale_backends import StaleBackends
from service.store.startup_checks import check_same_database, reach, refuse_prepared_transactions
from service.workers.pool import Pool, PoolSettings
from service.workers.zygote import ZygoteClient

log = structlog.get_logger(__name__)

DATABASE_CONNECTIONS = 10
"""Connections for calls and session writes; leases, readers, tail and upkeep have separate ones."""
READER_CONNECTIONS = 2
"""Connections for consumers that catch up. They are separate so that catching up delays neither writes nor the tail."""
DATABASE_WAIT_S = 60.0
"""Seconds to wait for a database that does not answer."""


class NoServer(Exception):
    """A setting names no server and no embedded server can be started; the message says why and what to do."""


@dataclass(frozen=True)
class Urls:
    """The servers' URLs, from the settings or of embedded servers."""

    database: str
    whatsapp_database: str
    redis: str


@dataclass(frozen=True)
class Connections:
    """Holds what a node has open. The database has several pools, so that one use does not wait for another."""

    calls: Database
    renewals: Database
    readers: Database
    tail: Database
    upkeep: Database
    stale: StaleBackends
    tokens: ResumeTokenCodec
    bus: RedisBus
    hub: WakeupHub
    pool: Pool


async def server_urls(settings: Settings, stack: AsyncExitStack) -> Urls:
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


async def check_databases(urls: Urls) -> None:
    """Wait until the database answers, and refuse one that cannot be used. Raises DatabaseUnreachable."""
    await reach(urls.database, "DATABASE_URL", DATABASE_WAIT_S)
    if urls.whatsapp_database != urls.database:
        await reach(urls.whatsapp_database, "ZAP_WHATSAPP_DATABASE_URL", DATABASE_WAIT_S)
        await check_same_database(urls.database, urls.whatsapp_database, "ZAP_WHATSAPP_DATABASE_URL")
    await refuse_prepared_transactions(urls.database, "DATABASE_URL")


async def connect(settings: Settings, urls: Urls, stack: AsyncExitStack, pool: Pool, metrics: Metrics) -> Connections:
    """Connect to the migrated database and to Redis."""
    renew_timeout = f"{settings.lease_times.renew_timeout:.3f}s"
    name = f"zap-service/{settings.node_id}"
    renewal_timeouts = {"statement_timeout": renew_timeout, "lock_timeout": renew_timeout}
    calls = await _open_database(stack, urls.database, name, DATABASE_CONNECTIONS, {})
    renewals = await _open_database(stack, urls.database, f"{name}/leases", 1, renewal_timeouts)
    readers = await _open_database(stack, urls.database, f"{name}/watch", READER_CONNECTIONS, {})
    tail = await _open_database(stack, urls.database, f"{name}/tail", 1, {})
    upkeep = await _open_database(stack, urls.database, f"{name}/upkeep", 1, UPKEEP_SETTINGS)
    # A separate URL for session processes means that a pooler may multiplex their backends.
    stale = StaleBackends(calls, is_pooled=urls.whatsapp_database != urls.database)
    tokens = ResumeTokenCodec(await token_key(readers))
    hub = WakeupHub()
    bus = RedisBus(urls.redis, hub, lambda event: to_json(event, tokens.write(event.resume_from)), metrics)
    stack.push_async_callback(bus.close)
    return Connections(calls, renewals, readers, tail, upkeep, stale, tokens, bus, hub, pool)


async def open_pool(
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


async def prepare_store(pool: Pool, urls: Urls) -> None:
    """Create whatsmeow's tables and the index that this service adds to one of them."""
    await pool.prepare_store()
    await index_event_buffer(urls.whatsapp_database)


async def _open_database(stack: AsyncExitStack, url: str, name: str, size: int, timeouts: dict[str, str]) -> Database:
    database = Database(url, name=name, size=size, timeouts=timeouts)
    await database.open()
    stack.push_async_callback(database.close)
    return database


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""
