"""Reads the event log in the order of places, below the horizon."""

from collections.abc import Sequence

from service.domain.errors import session_not_found
from service.domain.log_positions import START, LogPosition
from service.domain.watch import EventFilter, LogBounds, LoggedEvent, LogPage
from service.store.database import Database, Record

MOST_BYTES = 256 * 1024
"""Of payloads in one page, but for the last of them: what a stream may keep in memory for its consumer."""

FEW = 10
"""Sessions that are looked up one by one, each for a page of its own, of which one page in all is given. For those who
name more the whole log is read, and costs what it costs those who name none."""


async def token_key(database: Database) -> bytes:
    """The key that signs tokens, the same for all nodes of a database."""
    async with database.autocommit() as connection:
        return bytes(await connection.value("token_key"))


class PostgresLogReader:
    """ports.LogReader on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bounds(self, asked: LogPosition = START) -> LogBounds:
        """Which places there are, and whether `asked` is one."""
        async with self._database.autocommit() as connection:
            (row,) = await connection.rows("log_bounds", str(asked.xid), asked.id)
        return LogBounds(
            oldest=LogPosition(row["deleted_xid"], row["deleted_id"]),
            horizon=LogPosition(row["settled_xid"], row["settled_id"]),
            has_asked=row["has_asked"],
        )

    async def check_known(self, session_ids: Sequence[str]) -> None:
        """Raises NotFound for the first id of which there is neither a session nor was there ever an event."""
        async with self._database.autocommit() as connection:
            unknown = await connection.value("unknown_sessions", list(session_ids))
        if unknown is not None:
            raise session_not_found(unknown)

    async def read(self, after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        """At most `limit` events after a place, and of those the wanted ones; None: some have been deleted."""
        named = sorted(wanted.session_ids)
        async with self._database.autocommit() as connection:
            rows = await connection.rows(
                "read_log",
                str(after.xid),
                after.id,
                limit,
                MOST_BYTES,
                sorted(wanted.types) or None,
                wanted.user_id or None,
                dict(wanted.labels) or None,
                named if 0 < len(named) <= FEW else None,
                named if len(named) > FEW else None,
            )
        first = rows[0]
        if after < LogPosition(first["deleted_xid"], first["deleted_id"]):
            return None
        return _page(rows, after, limit)


def _page(rows: Sequence[Record], after: LogPosition, limit: int) -> LogPage:
    summary = rows[0]
    events = [_event(row) for row in rows if row["id"] is not None]
    is_last = False
    if len(events) < summary["passed"]:
        # More than fits into a page: the rest is the next one's.
        upto = events[-1].place
    elif summary["scanned"] >= limit:
        upto = LogPosition(summary["last_xid"], summary["last_id"])
    else:
        # The last event's place, not the horizon: numbers of transactions that left nothing on the disk are given out
        # again after a crash of Postgres. Unless this one is of a snapshot that was later: places never go back.
        upto, is_last = max(after, LogPosition(summary["settled_xid"], summary["settled_id"])), True
    return LogPage(
        events=events,
        upto=upto,
        is_last=is_last,
        is_held=is_last and summary["is_held"],
        newest_id=summary["newest_id"] or 0,
        read_time=summary["read_time"],
    )


def _event(row: Record) -> LoggedEvent:
    return LoggedEvent(
        place=LogPosition(row["xid"], row["id"]),
        session_id=row["session_id"],
        sequence=row["sequence"],
        time=row["time"],
        appended_at=row["appended_at"],
        type=row["type"],
        payload=bytes(row["payload"]),
        user_id=row["user_id"] or "",
        labels=row["labels"] or {},
    )
