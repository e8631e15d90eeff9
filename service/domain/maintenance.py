"""Define what the service reports to the operator of the database."""

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
