"""What it costs to append to the event log: `python -m benchmarks.appends [--events 1000000]`.

Batches of 1, 10 and 200 inbound messages on a log of so many events of 50 sessions: time and round trips of an append,
and bytes of Postgres's own log (WAL) for each event. Embedded Postgres, with fsync and full-page writes as in
production, and a checkpoint before each measurement: nothing of the indexes has been written since.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.observations import Happening
from service.embedded import EmbeddedPostgres
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.events import PostgresEventLog
from service.store.migrate import migrate
from tests.round_trips import RoundTrips
from zap.v1 import event_pb2

SESSIONS, WARM_UP = 50, 10
TEXT = 200
"""Bytes of each message."""
APPENDS = {1: 400, 10: 200, 200: 50}
"""How often batches of each size are appended."""

FILL = """
INSERT INTO zap.event (session_id, epoch, sequence, frame, time, type, payload, origin)
SELECT
    's' || n % {sessions}, 1, n / {sessions} + 1, n / {sessions} + 1, now() - interval '7 d' + n * interval '0.6 s',
    'MESSAGE_RECEIVED', decode(repeat(md5(n::text), 16), 'hex'),
    decode(lpad(to_hex(n / 6000), 8, '0'), 'hex') || substring(sha256(n::text::bytea) for 12)
FROM generate_series(0, $1 - 1) n
"""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the account of Postgres can reach."""
    with tempfile.TemporaryDirectory(prefix="zap-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


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
            await admin.execute(
                "INSERT INTO zap.session (session_id, name, user_id, labels, proxy_url, create_fingerprint,"
                " former_epoch) SELECT 's' || n, '', '', '{}', '', '', 0 FROM generate_series(0, $1 - 1) n",
                SESSIONS,
            )
            await admin.execute("VACUUM ANALYZE zap.event")
            await admin.close()
            yield server.url


def message(number: int) -> NewEvent:
    """A message that nobody has seen yet."""
    identity = uuid.uuid4()
    received = event_pb2.MessageReceived(message_id=identity.hex, raw=identity.bytes * (TEXT // 16))
    payload = event_pb2.Event(type=event_pb2.Event.TYPE_MESSAGE_RECEIVED, message_received=received)
    origin = int(time.time() / 3600).to_bytes(4) + identity.bytes[:12]
    return NewEvent(Happening("MESSAGE_RECEIVED", payload.SerializeToString()), datetime.now(UTC), number, origin)


async def measure(log: PostgresEventLog, admin: Any, line: RoundTrips, size: int) -> None:
    """Print a line of figures."""
    frame = 10_000_000 * size
    seconds: list[float] = []
    before, trips = 0, 0
    for number in range(WARM_UP + APPENDS[size]):
        if number == WARM_UP:
            await admin.execute("CHECKPOINT")
            before, trips = await written(admin), line.count
        lease = Lease(f"s{number % SESSIONS}", 2, uuid.UUID(int=0))
        batch = [message(frame := frame + 1) for _ in range(size)]
        began = time.perf_counter()
        appended = await log.append(lease, batch)
        seconds.append(time.perf_counter() - began)
        if len(appended) != size:
            raise RuntimeError(f"{len(appended)} of {size} were appended")
    grown = await written(admin) - before
    median = statistics.median(seconds[WARM_UP:]) * 1e6
    sys.stdout.write(
        f"batches of {size:3}: {median:6.0f} µs an append, {(line.count - trips) / APPENDS[size]:.1f} round trips;"
        f" {median / size:5.0f} µs an event, {grown / APPENDS[size] / size:5.0f} bytes of WAL\n"
    )


async def written(admin: Any) -> int:
    """Bytes of WAL that there ever were."""
    return int(await admin.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="in the log before")
    events: int = parser.parse_args().events
    async with filled_log(events) as url, RoundTrips(url) as line:
        database = Database(line.url, name="benchmark", size=1)
        await database.open()
        admin = await asyncpg.connect(url)
        sys.stdout.write(f"a log of {events:,} events of {SESSIONS} sessions; messages of {TEXT} bytes\n")
        for size in APPENDS:
            await measure(PostgresEventLog(database, encode_payload, _refuse), admin, line, size)
        await admin.close()
        await database.close()


def _refuse(session_id: str, event: NewEvent, error: Exception) -> None:
    raise error


if __name__ == "__main__":
    asyncio.run(main())
