"""Brings the database's schema up to date. An advisory lock lets one node at a time do it.

The files in migrations/ are in dbmate's format, so that an operator may use dbmate instead.
"""

import importlib.resources
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from service.store.startup_checks import connected, settle_restored_log

log = structlog.get_logger(__name__)

#: Key of the advisory lock for changes of the schema, whatsmeow's tables included.
SCHEMA_LOCK = 0x7A6170_0001
#: An index on one of whatsmeow's tables, with a name that whatsmeow will not choose.
EVENT_BUFFER_INDEX = "zap_event_buffer_insert_timestamp"


async def migrate(url: str, prepare_store: Callable[[], Awaitable[None]] | None = None) -> None:
    """Apply the missing migrations; then `prepare_store` lets whatsmeow migrate its tables.

    whatsmeow migrates without a lock (docs/neonize.md), so that two first starts at once would fail. Hence it does so
    here, under the lock, before any session process starts.
    """
    async with _locked(url) as connection:
        for version, script in await _missing(connection):
            async with connection.transaction():
                await connection.execute(script)
                await connection.execute("INSERT INTO zap.schema_migration (version) VALUES ($1)", version)
            log.info("Applied a migration.", version=version)
        await settle_restored_log(connection)
        if prepare_store is not None:
            await prepare_store()


async def index_event_buffer(url: str) -> None:
    """Create the index by which both this service and whatsmeow find old rows of whatsmeow's event buffer.

    `url` connects as the table's owner, perhaps through a pooler. Call this under the lock, after whatsmeow has created
    the table.
    """
    async with connected(url) as connection, connection.transaction():
        # Check first: CREATE INDEX IF NOT EXISTS locks the table against writers even if the index exists.
        if await connection.fetchval("SELECT to_regclass($1)", EVENT_BUFFER_INDEX) is None:
            await connection.execute(
                f"CREATE INDEX IF NOT EXISTS {EVENT_BUFFER_INDEX} ON whatsmeow_event_buffer (insert_timestamp)"
            )


@asynccontextmanager
async def _locked(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, timeout=5, server_settings={"application_name": "zap-service migrate"})
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", SCHEMA_LOCK)
        yield connection
    finally:
        # Closing the connection releases the lock.
        await connection.close()


async def _missing(connection: Any) -> list[tuple[str, str]]:
    await connection.execute("CREATE SCHEMA IF NOT EXISTS zap")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS zap.schema_migration"
        " (version text PRIMARY KEY, applied timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    applied = {row["version"] for row in await connection.fetch("SELECT version FROM zap.schema_migration")}
    return [(version, script) for version, script in _scripts() if version not in applied]


def _scripts() -> list[tuple[str, str]]:
    folder = importlib.resources.files("service.store").joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(file.name.partition("_")[0], _up(file.name, file.read_text())) for file in files]


def _up(name: str, text: str) -> str:
    match = re.search(r"^-- migrate:up\s*$(.*?)^-- migrate:down", text, flags=re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"{name} lacks '-- migrate:up' and '-- migrate:down'")
    return match[1]
