"""Deletes old events, messages and rows of whatsmeow's buffers, and finds the transaction that holds the horizon."""

from datetime import timedelta

from service.domain.maintenance import OldestTransaction, SessionCounts
from service.store.database import Connection, Database

#: Settings of connections for maintenance: short waits for locks; deletions that a crash undoes are repeated.
SESSION_SETTINGS = {"lock_timeout": "1s", "synchronous_commit": "off"}


class PostgresMaintenance:
    """Implements ports.eventlog.LogMaintenance on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def trim_events(self, older_than: timedelta, most: int) -> int:
        """Delete events in the order of log positions, and return how many."""
        return await self._trim("trim_events", older_than, most)

    async def trim_messages(self, older_than: timedelta, most: int) -> int:
        """Delete settled messages, and return how many."""
        return await self._trim("trim_messages", older_than, most)

    async def trim_event_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete whatsmeow's rows about decrypted messages that are in the log, and return how many."""
        return await self._trim("trim_event_buffer", older_than, most)

    async def trim_retry_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete whatsmeow's rows about sent messages, and return how many."""
        return await self._trim("trim_retry_buffer", older_than, most)

    async def _trim(self, name: str, older_than: timedelta, most: int) -> int:
        async with self._database.transaction() as connection:
            # A separate statement, so that the next one sees what the previous holder of the lock committed.
            if not await connection.value("begin_upkeep"):
                return 0
            return int(await connection.value(name, older_than, most))

    async def oldest_event_age(self) -> float:
        """Return the seconds since the oldest event was appended; 0 if there is none."""
        async with self._database.autocommit() as connection:
            return float(await connection.value("oldest_event_age") or 0.0)

    async def session_counts(self, max_age_s: float) -> SessionCounts | None:
        """Return the counts that all nodes share; count again if they are older, unless another node counts now.

        None: sessions were never counted, and another node counts now.
        """
        async with self._database.autocommit() as connection:
            known = await _session_counts(connection)
        if known is not None and known.age_s <= max_age_s:
            return known
        async with self._database.transaction() as connection:
            # A separate statement, so that the next one sees what the previous holder of the lock committed.
            if not await connection.value("begin_census"):
                return known
            known = await _session_counts(connection)
            if known is None or known.age_s > max_age_s:
                # Two statements: with a transaction number, the count would delay Watch while it runs.
                await connection.run("keep_session_counts", await connection.value("count_sessions"))
                known = await _session_counts(connection)
        return known

    async def horizon_holder(self) -> OldestTransaction | None:
        """Return the oldest transaction in flight; None if there is none."""
        async with self._database.autocommit() as connection:
            row = await connection.row("horizon_holder")
        if row is None:
            return None
        return OldestTransaction(row["xid"], row["database"], row["application"], row["pid"], row["state"])


async def _session_counts(connection: Connection) -> SessionCounts | None:
    row = await connection.row("session_counts")
    if row is None or row["age_s"] is None:
        return None
    counts = row["counts"]
    return SessionCounts(
        {(state, reason): sessions for state, reason, sessions, _ in counts},
        sum(wanted for _, _, _, wanted in counts),
        row["age_s"],
    )
