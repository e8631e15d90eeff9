"""What looks at many sessions cost: `python -m benchmarks.stored_sessions [--sessions 100000] [--nodes 500] [--plans]`.

Rows are inserted: sessions that are wanted and connected, owned in equal parts by nodes that are heard of, but for one
in 1,000 that is suspended; half as many again are not wanted. A user and a label have one in a hundred each. For each
look the median of several is printed: of a fleet in which nothing is due, then of one in which a node is dead.
"""

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

import asyncpg

from dev import EmbeddedPostgres
from service.domain.caller import ANONYMOUS
from service.domain.lease import Announcement, Node
from service.domain.session import State
from service.ports.sessions import SessionFilter
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.leases import PostgresLeases
from service.store.maintenance import PostgresMaintenance
from service.store.migrate import migrate
from service.store.queries import statement
from service.store.sessions import PostgresSessions
from tests.scenarios.servers import open_folder

TTL = 3600.0
ROUNDS = 7
FILL = """
INSERT INTO zap.session (
    session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch,
    desired_state, state, credentials, identity_key, paired_at, next_attempt_at
)
SELECT
    's' || lpad(n::text, 7, '0'), 'Session', 'u' || n % 100, jsonb_build_object('team', 't' || n % 100), '', '', 0,
    CASE WHEN n <= $1 THEN 'ACTIVE' ELSE 'INACTIVE' END,
    CASE WHEN n > $1 THEN 'DISCONNECTED' WHEN n % 1000 = 0 THEN 'SUSPENDED' ELSE 'CONNECTED' END,
    'CONFIRMED', sha256(n::text::bytea), now(), CASE WHEN n <= $1 AND n % 1000 = 0 THEN now() + interval '1 h' END
FROM generate_series(1, $1 * 3 / 2) n
"""
OWN = """
INSERT INTO zap.lease AS l (session_id, epoch, incarnation, node, renewed_at, expires_at)
SELECT
    's' || lpad(n::text, 7, '0'), 1,
    CASE WHEN is_owned THEN ($3::uuid[])[n % $2 + 1] END, 'n', now(), CASE WHEN is_owned THEN now() + interval '1 h' END
FROM (SELECT n, n <= $1 AND n % 1000 <> 0 AS is_owned FROM generate_series(1, $1 * 3 / 2) n) wanted
ON CONFLICT (session_id) DO UPDATE SET
    epoch = 1, incarnation = excluded.incarnation, renewed_at = excluded.renewed_at, expires_at = excluded.expires_at
"""
PAGE: tuple[object, ...] = ("s0010000", "", [], {}, 100)


async def fill(url: str, leases: PostgresLeases, sessions: int, nodes: int) -> list[uuid.UUID]:
    """Sessions, their leases, and the nodes that renew them."""
    incarnations = [uuid.uuid4() for _ in range(nodes)]
    admin = await asyncpg.connect(url, statement_cache_size=0)
    await admin.execute("SET statement_timeout = 0")
    await admin.execute(FILL, sessions)
    await admin.execute(OWN, sessions, nodes, incarnations)
    await admin.execute("VACUUM ANALYZE")
    for number, incarnation in enumerate(incarnations):
        await leases.renew(Announcement(Node(incarnation, f"n{number}", f"127.0.0.1:{number}"), 1000), TTL)
    await admin.execute("VACUUM ANALYZE")
    await admin.close()
    return incarnations


async def time_of(name: str, look: Callable[[], Awaitable[object]]) -> None:
    """Print the median and the best of several."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await look()
        seconds.append(time.perf_counter() - began)
    _say(f"{name:36} {statistics.median(seconds) * 1e3:9.1f} ms, best {min(seconds) * 1e3:9.1f}")


async def measure(url: str, database: Database, sessions: int, nodes: int) -> None:
    """Every look in turn."""
    leases, store = PostgresLeases(database, database), PostgresSessions(ANONYMOUS, database, encode_payload)
    incarnations = await fill(url, leases, sessions, nodes)
    me = incarnations[0]
    by: dict[str, SessionFilter] = {
        "": SessionFilter(),
        " by user": SessionFilter(user_id="u7"),
        " by label": SessionFilter(labels={"team": "t7"}),
        " by state SUSPENDED": SessionFilter(states=(State.SUSPENDED,)),
        " by state CONNECTED": SessionFilter(states=(State.CONNECTED,)),
        " by state RECONNECTING, none": SessionFilter(states=(State.RECONNECTING,)),
    }
    for name, chosen in by.items():
        await time_of(f"List, 100{name}", lambda chosen=chosen: store.list(chosen, "s0010000", 100))  # type: ignore[misc]
    await time_of("List, 1,000", lambda: store.list(SessionFilter(), "s0010000", 1000))
    await time_of("count of the fleet, one in 1,000 is suspended", lambda: leases.fleet_counts(me))
    maintenance = PostgresMaintenance(database)
    await time_of("count of all sessions", lambda: maintenance.session_counts(0.0))
    await time_of("another node's count", lambda: maintenance.session_counts(60.0))
    await time_of("renewal of one node", lambda: _renew(leases, me))
    dead = incarnations[-1]
    async with database.transaction() as connection:
        await connection._raw.execute("UPDATE zap.lease SET expires_at = now() WHERE incarnation = $1", dead)
        await connection._raw.execute("UPDATE zap.node SET expires_at = now() WHERE incarnation = $1", dead)
    await time_of("count of the fleet, a node is dead", lambda: leases.fleet_counts(me))
    await time_of("claim of one session", lambda: leases.claim(me, "n0", TTL, 1, pairings=False))


async def _renew(leases: PostgresLeases, incarnation: uuid.UUID) -> None:
    await leases.renew(Announcement(Node(incarnation, "n0", "127.0.0.1:0"), 1000), TTL)


async def show_plans(url: str) -> None:
    """How Postgres comes to a page, and to what is due."""
    connection = await asyncpg.connect(url)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=lambda _: "{}", decoder=str)
    for name, arguments in (("list_sessions", PAGE), ("fleet_counts", (uuid.UUID(int=1), 1.0))):
        _say(f"\n{name}")
        for row in await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {statement(name)}", *arguments):
            _say(row[0])
    await connection.close()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def run(sessions: int, nodes: int, *, plans: bool) -> None:
    """On a database of its own."""
    with open_folder() as folder:
        async with EmbeddedPostgres(folder, durable=False, die_with_starter=True) as server:
            await migrate(server.url)
            database = Database(server.url, name="benchmark", timeouts={"statement_timeout": "60s"})
            await database.open()
            try:
                await measure(server.url, database, sessions, nodes)
            finally:
                await database.close()
            if plans:
                await show_plans(server.url)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--plans", action="store_true")
    options = parser.parse_args()
    asyncio.run(run(options.sessions, options.nodes, plans=options.plans))
