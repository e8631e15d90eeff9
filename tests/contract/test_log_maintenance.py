"""service.ports.LogMaintenance: what its fake does with old rows, Postgres does."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from service.domain.caller import ANONYMOUS
from service.ports.eventlog import LogMaintenance
from service.ports.sessions import NewSession
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.maintenance import SESSION_SETTINGS, PostgresMaintenance
from service.store.sessions import PostgresSessions
from tests.eventually import eventually
from tests.fakes.log_maintenance import FakeLogMaintenance
from tests.log_writer import append_events, message

HOUR = timedelta(hours=1)
OLD, BATCH = 5, 2


@pytest.fixture(params=["fake", "Postgres"])
async def upkeep(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[LogMaintenance]:
    """Five old events, and as many old messages."""
    if request.param == "fake":
        yield FakeLogMaintenance(events=OLD, messages=OLD)
        return
    sql = await asyncpg.connect(database_url)
    database = Database(database_url, name="test/upkeep", size=2, timeouts=SESSION_SETTINGS)
    await database.open()
    await append_events(database, "anna", [message(number) for number in range(OLD)])
    await PostgresSessions(ANONYMOUS, database, encode_payload).create(NewSession("anna", "", "", {}, "", ""))
    await sql.execute(
        "INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch, state, message_id)"
        " SELECT 'anna', 'r' || n, 'x@lid', ''::bytea, 1, 'SENT', 'WA' || n FROM generate_series(1, $1) n",
        OLD,
    )
    await sql.execute("UPDATE zap.event SET appended_at = appended_at - interval '2 hours'")
    await sql.execute("UPDATE zap.message SET create_time = create_time - interval '2 hours'")
    yield PostgresMaintenance(database)
    await sql.close()
    await database.close()


async def test_old_messages_are_deleted_in_batches_and_counted(upkeep: LogMaintenance) -> None:
    assert [await upkeep.trim_messages(HOUR, BATCH) for _ in range(4)] == [2, 2, 1, 0]


async def test_old_events_are_deleted_in_batches_and_counted(upkeep: LogMaintenance) -> None:
    deleted: list[int] = []

    async def is_done() -> bool:
        """Return whether all are gone: a transaction of another test may hold the horizon for a moment."""
        deleted.append(await upkeep.trim_events(HOUR, BATCH))
        return sum(deleted) >= OLD

    assert await upkeep.oldest_event_age() > 0
    await eventually(is_done, "the deletion of every event")
    assert [count for count in deleted if count] == [2, 2, 1]
    assert await upkeep.trim_events(HOUR, BATCH) == 0
    assert await upkeep.oldest_event_age() == 0.0
