"""Define what the service reports to the operator of the database."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OldestTransaction:
    """Describes the oldest transaction in flight with an id: it blocks the horizon, and with it Watch."""

    xid: int
    """The 64-bit transaction id."""
    database: str
    application: str
    """application_name, kind of backend, or gid of a prepared transaction; "somebody" if this role may not see it."""
    pid: int
    """Process id of the backend; 0: the transaction is prepared, or this role may not see it."""
    state: str
    """As in pg_stat_activity; "prepared", or "unknown"."""


@dataclass(frozen=True)
class SessionCounts:
    """Counts the sessions of the whole database, as one node did for all nodes."""

    by_state: Mapping[tuple[str, str], int]
    """Sessions by state and reason; the reason is empty if none is given."""
    wanted: int
    """Paired sessions that are to be connected."""
    age_s: float
    """Seconds since they were counted, by the database's clock."""
