"""What it costs to append to the event log: `python -m benchmarks.appends [--events 1000000]`.

Batches of 1, 10 and 200 inbound messages on a log of so many events of 50 sessions, with fsync and without. Two ways
alternate in one run: one round trip, as the node appends inbound events, and a transaction of four, as it appends its
own events (without the fence and the receipts, here). For each: time of an append, round trips, processor time of this
process and of Postgres, and bytes of Postgres's own log (WAL). Embedded Postgres, with full-page writes as in
production, and a checkpoint before each series: nothing of the indexes has been written since.
"""

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from dev import EmbeddedPostgres
from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.observations import InboundEvent
from service.eventlog.inbound import PostgresEventLog
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.event_rows import append, lock_log
from service.store.migrate import migrate
from tests.round_trips import RoundTrips
from tests.scenarios.servers import open_folder
from zap.v1 import event_pb2

SESSIONS, WARM_UP, ROUNDS = 50, 10, 4
TEXT = 200
"""Bytes of each message."""
APPENDS = {1: 100, 10: 50, 200: 15}
"""How often batches of each size are appended in each of the rounds."""
NODE, EPOCH = uuid.UUID(int=1), 2

FILL = """
INSERT INTO zap.event (session_id, epoch, sequence, time, type, payload, origin)
SELECT
    's' || n % {sessions}, 1, n / {sessions} + 1, now() - interval '7 d' + n * interval '0.6 s',
    'MESSAGE_RECEIVED', decode(repeat(md5(n::text), 16), 'hex'),
    decode(lpad(to_hex(n / 6000), 8, '0'), 'hex') || substring(sha256(n::text::bytea) for 12)
FROM generate_series(0, $1 - 1) n
"""
OWN = """
WITH named AS (SELECT 's' || n AS session_id FROM generate_series(0, $1 - 1) n),
owned AS (
    INSERT INTO zap.lease (session_id, epoch, incarnation, expires_at)
    SELECT session_id, $2, $3, now() + interval '1 d' FROM named
)
INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint, former_epoch)
SELECT session_id, '', '', '{}', '', '', 0 FROM named
"""

Append = Callable[[Database, str, Sequence[NewEvent]], Awaitable[object]]


async def in_one_round_trip(database: Database, session_id: str, events: Sequence[NewEvent]) -> None:
    """As the node appends what comes in."""
    await PostgresEventLog(database, encode_payload, _refuse).append(Lease(session_id, EPOCH, NODE), events)


async def in_a_transaction(database: Database, session_id: str, events: Sequence[NewEvent]) -> None:
    """As the node appends what it says itself."""
    async with database.transaction() as connection:
        await lock_log(connection, session_id)
        await append(connection, encode_payload, session_id, EPOCH, events)


WAYS: Mapping[str, Append] = {"a transaction": in_a_transaction, "one round trip": in_one_round_trip}


@dataclass
class Cost:
    """What appends of one kind have cost."""

    seconds: list[float] = field(default_factory=list)
    node: float = 0.0
    postgres: float = 0.0
    """Seconds of processor time."""
    wal: int = 0
    trips: float = 0.0
    """Of one append."""

    def __str__(self) -> str:
        """Of an append."""
        count = len(self.seconds)
        return (
            f"{statistics.median(self.seconds) * 1e3:7.2f} ms, {self.trips:.1f} round trips,"
            f" processor {self.node / count * 1e3:6.2f} ms here and {self.postgres / count * 1e3:6.2f} ms in Postgres,"
            f" {self.wal / count:8.0f} bytes of WAL"
        )


@asynccontextmanager
async def filled_log(events: int) -> AsyncIterator[str]:
    """A database whose log has so many events."""
    with open_folder() as folder:
        async with EmbeddedPostgres(folder, die_with_starter=True) as server:
            await migrate(server.url)
            admin = await asyncpg.connect(server.url)
            await admin.execute(FILL.format(sessions=SESSIONS), events)
            await admin.execute(
                "INSERT INTO zap.event_sequence SELECT session_id, max(sequence) FROM zap.event GROUP BY 1"
            )
            await admin.execute(OWN, SESSIONS, EPOCH, NODE)
            await admin.execute("VACUUM ANALYZE zap.event")
            await admin.close()
            yield server.url


def message() -> NewEvent:
    """A message that nobody has seen yet."""
    identity = uuid.uuid4()
    received = event_pb2.MessageReceived(message_id=identity.hex, raw=identity.bytes * (TEXT // 16))
    payload = event_pb2.Event(type=event_pb2.Event.TYPE_MESSAGE_RECEIVED, message_received=received)
    origin = int(time.time() / 3600).to_bytes(4) + identity.bytes[:12]
    return NewEvent(InboundEvent("MESSAGE_RECEIVED", payload.SerializeToString()), datetime.now(UTC), origin)


async def measure(database: Database, admin: Any, way: Append, size: int, cost: Cost) -> None:
    """Add a series of appends to what such ones cost."""
    batches = [[message() for _ in range(size)] for _ in range(WARM_UP + APPENDS[size])]
    for batch in batches[:WARM_UP]:
        await way(database, "s0", batch)
    async with database.autocommit() as connection:
        backend = await connection._raw.fetchval("SELECT pg_backend_pid()")
    await admin.execute("CHECKPOINT")
    wal, node, postgres = await written(admin), time.process_time(), processor_time(backend)
    for number, batch in enumerate(batches[WARM_UP:]):
        began = time.perf_counter()
        await way(database, f"s{number % SESSIONS}", batch)
        cost.seconds.append(time.perf_counter() - began)
    cost.node += time.process_time() - node
    cost.postgres += processor_time(backend) - postgres
    cost.wal += await written(admin) - wal


async def round_trips(url: str, way: Append, size: int) -> float:
    """Of one append, counted by a line that would be in the way of everything else that is measured."""
    async with RoundTrips(url) as line:
        database = await _open(line.url)
        await way(database, "s0", [message()])
        before = line.count
        await way(database, "s0", [message() for _ in range(size)])
        trips = line.count - before
        await database.close()
        return trips


async def written(admin: Any) -> int:
    """Bytes of WAL that there ever were."""
    return int(await admin.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


def processor_time(pid: int) -> float:
    """Seconds that a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="in the log before")
    events: int = parser.parse_args().events
    async with filled_log(events) as url:
        admin = await asyncpg.connect(url)
        sys.stdout.write(f"a log of {events:,} events of {SESSIONS} sessions; messages of {TEXT} bytes\n")
        for fsync in ("on", "off"):
            await admin.execute(f"ALTER SYSTEM SET fsync = {fsync}")
            await admin.execute("SELECT pg_reload_conf()")
            for size in APPENDS:
                await compare(url, admin, size, f"fsync {fsync}, batches of {size:3}")
        await admin.close()


async def compare(url: str, admin: Any, size: int, what: str) -> None:
    """Print what each of the ways costs, and the last one as a part of the first."""
    database = await _open(url)
    costs = {name: Cost(trips=await round_trips(url, way, size)) for name, way in WAYS.items()}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            await measure(database, admin, way, size, costs[name])
    await database.close()
    for name, cost in costs.items():
        sys.stdout.write(f"{what}, {name:14}: {cost}\n")
    first, *_, last = costs.values()
    parts = (
        statistics.median(last.seconds) / statistics.median(first.seconds),
        last.node / first.node,
        last.postgres / first.postgres,
        last.wal / first.wal,
    )
    sys.stdout.write("  ratio: time {:.2f}, processor here {:.2f}, in Postgres {:.2f}, WAL {:.2f}\n".format(*parts))


async def _open(url: str) -> Database:
    database = Database(url, name="benchmark", size=1)
    await database.open()
    return database


def _refuse(session_id: str, event: NewEvent, error: Exception) -> None:
    raise error


if __name__ == "__main__":
    asyncio.run(main())
