"""What whoever looks after the database gets to know."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OldestTransaction:
    """A transaction in flight that has written something: the oldest one, so that Watch shows nothing beyond it."""

    xid: int
    """Its number, on 64 bits."""
    database: str
    application: str
    """What its connection calls itself, or the kind of process; of a prepared transaction its gid. "somebody" if this
    role may not see it."""
    pid: int
    """Of its backend; 0 if it has none: it is a prepared one, or not to be seen."""
    state: str
    """As in pg_stat_activity; "prepared", or "unknown"."""
