"""Reads the event log in the order of log positions, below the horizon."""

from collections.abc import Sequence

from service.domain.errors import session_not_found
from service.domain.log_positions import START, LogPosition
from service.domain.watch import EventFilter, LogBounds, LoggedEvent, LogPage
from service.store.database import Database, Record

PAGE_BYTES = 256 * 1024
"""Bytes of payload in one page, without its last event: what a stream may keep in memory for its consumer."""

MOST_BY_INDEX = 10
"""Sessions that are read by index, each up to a full page, before one page of all is returned. A filter that names more
sessions reads the whole log, like one that names none."""


async def token_key(database: Database) -> bytes:
    """Return the key that signs resume tokens, the same for all nodes of a database."""
    async with database.autocommit() as connection:
        return bytes(await connection.value("token_key"))


class PostgresLogReader:
    """Implements ports.eventlog.LogReader on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bounds(self, asked: LogPosition = START) -> LogBounds:
        """Return the bounds of the log, and whether `asked` is a position in it."""
        async with self._database.autocommit() as connection:
            (row,) = await connection.rows("log_bounds", str(asked.xid), asked.id)
        return LogBounds(
            oldest=LogPosition(row["deleted_xid"], row["deleted_id"]),
            horizon=LogPosition(row["settled_xid"], row["settled_id"]),
            has_asked=row["has_asked"],
        )

    async def check_known(self, wanted: EventFilter) -> None:
        """Raise NotFound for the first session named that has no row and never had an event."""
        async with self._database.autocommit() as connection:
            unknown = await connection.value("unknown_sessions", sorted(wanted.session_ids))
        if unknown is not None:
            raise session_not_found(unknown)

    async def read(self, after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        """Scan at most `limit` events after a position, and return the wanted ones; None if some were deleted."""
        named = sorted(wanted.session_ids)
        async with self._database.autocommit() as connection:
            rows = await connection.rows(
                "read_log",
                str(after.xid),
                after.id,
                limit,
                PAGE_BYTES,
                sorted(wanted.types) or None,
                wanted.user_id or None,
                dict(wanted.labels) or None,
                named if 0 < len(named) <= MOST_BY_INDEX else None,
                named if len(named) > MOST_BY_INDEX else None,
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
        # The page is full: the next page continues after its last event.
        upto = events[-1].position
    elif summary["scanned"] >= limit:
        upto = LogPosition(summary["last_xid"], summary["last_id"])
    else:
        # The last event's position, not the horizon: after a crash Postgres reuses numbers that left nothing
        # on disk. max(): `after` may come from a later snapshot, and positions never go back.
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
        position=LogPosition(row["xid"], row["id"]),
        session_id=row["session_id"],
        sequence=row["sequence"],
        time=row["time"],
        appended_at=row["appended_at"],
        type=row["type"],
        payload=bytes(row["payload"]),
        user_id=row["user_id"] or "",
        labels=row["labels"] or {},
    )
