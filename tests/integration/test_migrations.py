"""The schema's way up and down, and two nodes that start at once on an empty database."""

import asyncio
import importlib.resources
import re
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dev import EmbeddedPostgres
from service.store.migrate import migrate

SCRIPTS = sorted(
    (file for file in importlib.resources.files("service.store").joinpath("migrations").iterdir()),
    key=lambda file: file.name,
)
WHAT_IS_THERE = """
SELECT 'column', table_schema, table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema IN ('zap', 'public')
UNION ALL
SELECT 'view', schemaname, viewname, definition, '', '', '' FROM pg_views WHERE schemaname IN ('zap', 'public')
UNION ALL
SELECT 'index', schemaname, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname IN ('zap', 'public')
UNION ALL
SELECT 'function', 'zap', proname, pg_get_functiondef(oid), '', '', '' FROM pg_proc
WHERE pronamespace = 'zap'::regnamespace
ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
async def empty(
    postgres_server: EmbeddedPostgres, postgres_admin: "asyncpg.Connection[asyncpg.Record]"
) -> AsyncIterator[str]:
    """A database in which nobody has ever been."""
    name = f"empty_{uuid.uuid4().hex}"
    await postgres_admin.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url_of(name)
    await asyncio.shield(postgres_admin.execute(f"DROP DATABASE {name} WITH (FORCE)"))


async def what_is_there(connection: "asyncpg.Connection[asyncpg.Record]") -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch(WHAT_IS_THERE)]


async def test_two_that_start_at_once_change_the_schema_once_and_one_after_the_other(empty: str) -> None:
    inside = 0

    async def prepare() -> None:
        nonlocal inside
        inside += 1
        assert inside == 1, "whatsmeow changes its own tables without a lock"
        await asyncio.sleep(0.05)
        inside -= 1

    await asyncio.gather(*(migrate(empty, prepare) for _ in range(4)))
    connection = await asyncpg.connect(empty)
    applied = await connection.fetch("SELECT version FROM zap.schema_migration ORDER BY version")
    await connection.close()
    assert [row["version"] for row in applied] == [script.name.partition("_")[0] for script in SCRIPTS]


async def test_the_way_down_ends_where_the_way_up_began(empty: str) -> None:
    await migrate(empty)
    connection = await asyncpg.connect(empty)
    marks = re.compile(r"^-- migrate:(?:up|down)\s*$", re.MULTILINE)
    halves = [marks.split(script.read_text())[1:] for script in SCRIPTS]
    newest = await what_is_there(connection)
    for number in range(len(SCRIPTS) - 1, 0, -1):
        _, down = halves[number]
        await connection.execute(down)
        below = await what_is_there(connection)
        for up, _ in halves[number:]:
            await connection.execute(up)
        assert await what_is_there(connection) == newest, SCRIPTS[number].name
        for _, down in reversed(halves[number:]):
            await connection.execute(down)
        assert await what_is_there(connection) == below, SCRIPTS[number].name
    await connection.close()
