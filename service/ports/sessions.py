"""Declares the stores of sessions: for callers, and for the owner of a session."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from service.domain.events import Event
from service.domain.lease import Lease
from service.domain.pairing import PairingCode
from service.domain.records import Account, Pairing, Session
from service.domain.session import Condition, State, Transition


@dataclass(frozen=True)
class NewSession:
    """Holds what a caller gives of a new session."""

    session_id: str
    name: str
    user_id: str
    labels: Mapping[str, str]
    proxy_url: str = field(repr=False)
    request_id: str


@dataclass(frozen=True)
class SessionFilter:
    """Selects sessions to list; empty values do not filter."""

    user_id: str = ""
    states: tuple[State, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """Holds new values for the caller's fields of a session; None leaves a field as it is."""

    name: str | None = None
    user_id: str | None = None
    labels: Mapping[str, str] | None = None
    proxy_url: str | None = field(default=None, repr=False)


Decide = Callable[[Condition, datetime], Transition]
"""Maps a session's condition, read under its row lock, and the database's time to the transition to write."""


class SessionStore(Protocol):
    """Stores sessions and their pairings, for one caller.

    Each method is one transaction; Unavailable if Postgres cannot be reached.
    """

    async def create(self, new: NewSession) -> Session:
        """Create a session, or return the one that the same request_id created before.

        Raises AlreadyExists if the id is taken, InvalidArgument (REQUEST_ID_REUSED) if the earlier content differs.
        """

    async def get(self, session_id: str) -> Session:
        """Return a session. Raises NotFound."""

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        """Return sessions with an id greater than `after`, in order."""

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        """Change a session. Raises NotFound, or Conflict if `etag` is given and not the current one."""

    async def delete(self, session_id: str, *, force: bool) -> None:
        """Delete a session and its credentials. Raises NotFound; FailedPrecondition (SESSION_PAIRED) without force."""

    async def decide(self, session_id: str, decide: Decide) -> tuple[Session, Transition, Sequence[Event]]:
        """Write the transition that `decide` returns, and its events. Not fenced: for the desired state."""

    async def pairing(self, session_id: str) -> tuple[Session, Pairing]:
        """Return the session with its current or last pairing. Raises NotFound."""


@dataclass(frozen=True)
class Resume:
    """Says how a new process of a session begins: with a device, or with a pairing."""

    wanted: bool
    """False: do not start a process; the session is inactive, not due, or deleted."""
    jid: str = field(default="", repr=False)
    """The device to resume; empty: pair a new one."""
    missing: bool = False
    """The session has credentials, but the database does not have them."""
    proxy_url: str = field(default="", repr=False)


class OwnedSessionStore(Protocol):
    """Writes what the owner of a session reports.

    Every method is fenced. Raises LeaseLost if the epoch is not the current one, EpochRevoked if the epoch is current
    but must end, NotFound if the session was deleted.
    """

    async def observe(
        self, lease: Lease, decide: Decide, account: Account | None
    ) -> tuple[Session, Transition, Sequence[Event]]:
        """Write the transition that `decide` returns, new facts about the account, and the events."""

    async def show_code(self, lease: Lease, code: PairingCode, identity: bytes) -> Sequence[Event]:
        """Bind the session to the identity key and make the code the current one, in one transaction."""

    async def prepare(self, lease: Lease) -> Resume:
        """Clean up after earlier processes and return how the next one begins. Only while no process runs.

        Deletes devices that the session discarded, and binds a device whose scan was not recorded, by its identity key.
        Messages that an earlier process was sending become OUTCOME_UNKNOWN. No statement of an earlier process takes
        effect after this.
        """

    async def delete_discarded_devices(self, lease: Lease) -> None:
        """Delete the devices that the session discarded. Only while no process of it runs."""
