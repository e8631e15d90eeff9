"""Deletes old events, messages and rows of whatsmeow's buffers, and tells what holds the horizon."""

from collections.abc import Mapping
from datetime import timedelta

from service.domain.maintenance import OldestTransaction
from service.store.database import Database

#: Of connections for upkeep: it waits for nobody, and what a crash of the server may undo of it is done again.
SESSION_SETTINGS = {"lock_timeout": "1s", "synchronous_commit": "off"}


class PostgresMaintenance:
    """ports.LogUpkeep on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def trim_events(self, older_than: timedelta, most: int) -> int:
        """Delete events in the order of places; how many."""
        return await self._trim("trim_events", older_than, most)

    async def trim_messages(self, older_than: timedelta, most: int) -> int:
        """Delete messages that are settled; how many."""
        return await self._trim("trim_messages", older_than, most)

    async def trim_event_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete what whatsmeow remembers of decrypted messages that are in the log; how many."""
        return await self._trim("trim_event_buffer", older_than, most)

    async def trim_retry_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete what whatsmeow keeps of sent messages; how many."""
        return await self._trim("trim_retry_buffer", older_than, most)

    async def _trim(self, name: str, older_than: timedelta, most: int) -> int:
        async with self._database.transaction() as connection:
            # A statement of its own: what the one before did last must be seen.
            if not await connection.value("begin_upkeep"):
                return 0
            return int(await connection.value(name, older_than, most))

    async def oldest_event_age(self) -> float:
        """Seconds since the oldest event was appended; 0 if there is none."""
        async with self._database.autocommit() as connection:
            return float(await connection.value("oldest_event_age") or 0.0)

    async def count_sessions(self) -> Mapping[tuple[str, str], int]:
        """How many sessions are in each state for each reason, as Status shows them."""
        async with self._database.autocommit() as connection:
            found = await connection.rows("count_sessions")
        return {(row["state"], row["reason"]): row["sessions"] for row in found}

    async def horizon_holder(self) -> OldestTransaction | None:
        """The oldest transaction in flight; None if there is none."""
        async with self._database.autocommit() as connection:
            row = await connection.row("horizon_holder")
        return (
            None
            if row is None
            else OldestTransaction(row["xid"], row["database"], row["application"], row["pid"], row["state"])
        )
