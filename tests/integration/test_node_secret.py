"""The nodes of a database have one secret, which the database does not give away."""

import hashlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.store.node_secret import NodeSecretDiffers, agree_on_secret, fingerprint
from tests.e2e.sql import Sql

SECRET = "of-all-nodes-of-this-test"


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_what_is_stored_is_derived_slowly_and_for_this_database_alone(database_url: str, sql: Sql) -> None:
    mine = await fingerprint(database_url, SECRET)
    assert mine == await fingerprint(database_url, SECRET)
    assert mine != await fingerprint(database_url, f"{SECRET}.")
    row = await sql.fetchrow("SELECT salt, fingerprint FROM zap.node_secret")
    assert row is not None
    assert row["fingerprint"] is None
    assert len(row["salt"]) == 32
    assert mine == hashlib.scrypt(SECRET.encode(), salt=row["salt"], n=2**14, r=8, p=1, dklen=32)
    await sql.execute("UPDATE zap.node_secret SET salt = sha256('another database')")
    assert mine != await fingerprint(database_url, SECRET)


async def test_a_secret_stays_while_a_node_lives_that_has_it(database_url: str, sql: Sql) -> None:
    ours, theirs = bytes(32), bytes([1]) * 32
    await agree_on_secret(database_url, ours)
    await agree_on_secret(database_url, ours)
    # It has just started, and is about to announce itself.
    with pytest.raises(NodeSecretDiffers, match="just started"):
        await agree_on_secret(database_url, theirs)
    await sql.execute("UPDATE zap.node_secret SET used_at = '-infinity'")
    await sql.execute(
        "INSERT INTO zap.node (incarnation, node, address, most_sessions, expires_at)"
        " VALUES (gen_random_uuid(), 'n1', '', 1, clock_timestamp() + interval '1 h')"
    )
    with pytest.raises(NodeSecretDiffers, match=r"\(n1\)"):
        await agree_on_secret(database_url, theirs)
    await sql.execute("UPDATE zap.node SET expires_at = clock_timestamp()")
    await agree_on_secret(database_url, theirs)
    with pytest.raises(NodeSecretDiffers):
        await agree_on_secret(database_url, ours)


async def test_a_schema_of_before_has_no_place_for_it(database_url: str, sql: Sql) -> None:
    await sql.execute("DROP TABLE zap.node_secret")
    assert await fingerprint(database_url, SECRET) is None
