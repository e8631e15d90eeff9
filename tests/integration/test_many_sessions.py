"""What a look at a database of many sessions reads, by Postgres's own account: what it shows, and not all there is."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.store.database import Database
from service.store.queries import statement

SESSIONS = 3000


class Looks:
    """A database on which statements are explained."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, sql: str, *arguments: object) -> None:
        async with self._database.transaction() as connection:
            await connection._raw.execute(sql, *arguments)

    async def plan(self, name: str, *arguments: object) -> dict[str, Any]:
        """How a statement was carried out; not its first time on the connection, which reads catalogs."""
        async with self._database.transaction() as connection:
            await connection.rows(name, *arguments)
            explained = await connection._raw.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement(name)}", *arguments
            )
        plan: dict[str, Any] = json.loads(explained)[0]["Plan"]
        return plan


@pytest.fixture
async def looks(database_url: str) -> AsyncIterator[Looks]:
    database = Database(database_url, name="test")
    await database.open()
    made = Looks(database)
    await made.run(
        "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch,"
        " desired_state, state)"
        " SELECT lpad(n::text, 5, '0'), '', 'user-' || n % 10, jsonb_build_object('team', (n % 10)::text), '', '', 0,"
        " 'ACTIVE', CASE WHEN n % 10 = 7 THEN 'FAILED' ELSE 'RECONNECTING' END FROM generate_series(1, $1) n",
        SESSIONS,
    )
    await made.run("ANALYZE zap.session")
    yield made
    await database.close()


@pytest.mark.parametrize("filters", [("", [], {}), ("user-7", [], {}), ("", [], {"team": "7"}), ("", ["FAILED"], {})])
async def test_a_page_of_sessions_costs_what_is_on_it(
    looks: Looks, filters: tuple[str, list[str], dict[str, str]]
) -> None:
    page = await looks.plan("list_sessions", "00100", *filters, 10)
    assert page["Actual Rows"] == 10
    assert page["Shared Hit Blocks"] + page["Shared Read Blocks"] < SESSIONS / 5, "each session that is read costs some"
