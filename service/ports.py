"""Declare what the core needs from the world, and state each port's guarantees."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from service.domain.events import Event, NewEvent
from service.domain.fleet_counts import FleetCounts
from service.domain.lease import Announcement, Lease, LeaseOwner, Node, Renewal
from service.domain.log_positions import START, LogPosition
from service.domain.maintenance import OldestTransaction
from service.domain.observations import Observed
from service.domain.pairing import PairingCode
from service.domain.placement import CLAIM_GRACE_S, Candidate
from service.domain.records import Account, MessageState, OutboundMessage, Outcome, Pairing, Session, TypedPayload
from service.domain.send_failures import SendFailure
from service.domain.session import Condition, State, Transition
from service.domain.start_scheduler import Lane
from service.domain.watch import EventFilter, LogBounds, LogPage, StartPosition, Step

# --- session processes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartOrder:
    """Says which session a new process serves."""

    session_id: str
    epoch: int
    jid: str = field(repr=False)
    """The device to resume; empty: pair a new one."""
    proxy_url: str = field(repr=False)
    """Empty: none."""
    permitted_until: float
    """End of the first run permit, in seconds of time.monotonic(); without a later one the process is dead by then."""
    lane: Lane = Lane.RESTART
    """Priority of the start permit, for metrics."""


@dataclass(frozen=True)
class SendReply:
    """Confirms that WhatsApp's server has the message."""

    message_id: str
    sent_time: datetime


class CallFailed(Exception):
    """A call to a session process did not succeed.

    `certain`: nothing was done, and the message says why. Otherwise the outcome is unknown: the process ended, or did
    not answer in time. `failure`: the kind of a certain failure to send.
    """

    def __init__(self, message: str, *, certain: bool, failure: SendFailure = SendFailure.NOT_SENT) -> None:
        super().__init__(message)
        self.certain = certain
        self.failure = failure


class SessionProcess(Protocol):
    """Controls one session process. It is never reused: a new process replaces it."""

    def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield what the process reports, in order, in batches of all that waits.

        The last observation is always an `Ended`, and the process is dead by then. It is the process's own report, or
        PROCESS_DIED with the exit status as its detail.
        """

    def permit(self, until: float) -> None:
        """Extend the run permit to this moment of time.monotonic(). Never blocks; ignores an earlier moment."""

    def confirm(self, number: int) -> None:
        """Report that every frame up to this number is committed, so that the process acknowledges it to WhatsApp."""

    async def send(self, to: str, content: TypedPayload, timeout: float) -> SendReply:
        """Send a content (zap.v1.SendRequest.content) to a JID. Raises CallFailed, as `call` does."""

    async def call(self, request: TypedPayload, timeout: float) -> TypedPayload:
        """Have any request of zap/worker/v1/calls.proto carried out, and return its result.

        Raises CallFailed; after `timeout` seconds with certain=False.
        """

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        """Request a code from WhatsApp to type on the phone. Raises CallFailed."""

    async def log_out(self, timeout: float) -> None:
        """Unlink the device at WhatsApp. Raises CallFailed."""

    async def stop(self, grace: float) -> None:
        """Stop the process and return when it is dead.

        It disconnects, finishes its current event and exits; after `grace` seconds it is killed.
        """

    async def kill(self) -> None:
        """Kill the process. Returns only when it is dead, however long that takes."""


class ProcessPool(Protocol):
    """Makes session processes."""

    async def start(self, order: StartOrder) -> SessionProcess:
        """Start a process. Raises Unavailable if none can be started now."""


class StartPermit(Protocol):
    """Allows one start of a session process. Only the first `use` or `give_back` has an effect."""

    @property
    def lane(self) -> Lane:
        """Return the priority with which the permit was requested."""

    def use(self) -> bool:
        """Use the permit for a start now. False: it has expired; wait for another one."""

    def give_back(self) -> None:
        """Return the permit unused."""


class PermitSource(Protocol):
    """Grants start permits at a limited rate (sessions.start_limiter.StartLimiter)."""

    async def acquire(self, lane: Lane, wants: int) -> Sequence[StartPermit]:
        """Wait for start permits; return at least one and at most `wants`."""


# --- storage ----------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Appended:
    """Holds the result of an append to the log."""

    events: Sequence[Event] = ()
    """The new ones, in order."""
    message_ids: Sequence[str] = ()
    """WhatsApp's ids of sent messages whose state the receipts among the events advanced."""


class EventLog(Protocol):
    """Appends inbound events to the durable log."""

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append events and apply their receipts to sent messages, in one transaction.

        Fenced: raises LeaseLost if the epoch is not the current one, NotFound if the session was deleted (also if a new
        one has its id); nothing is written then. A revoked epoch may still append. An event whose dedup key is in the
        log is neither appended nor returned. An event that Postgres refuses is left out and logged.
        """


class LogReader(Protocol):
    """Reads the durable log in the order of positions. Every method raises Unavailable without Postgres."""

    async def bounds(self, asked: LogPosition = START) -> LogBounds:
        """Return the bounds of the log, and whether `asked` is a position in it."""

    async def check_known(self, wanted: EventFilter) -> None:
        """Raise NotFound for the first of the filter's session ids that has neither a session nor events."""

    async def read(self, after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        """Read at most `limit` events after a position and return the wanted ones; None: some are deleted.

        Reads only below the horizon: an event that is missing before the page's end will never appear there.
        """


Read = Callable[[LogPosition, EventFilter, int], Awaitable[LogPage | None]]
"""LogReader.read."""

Watch = Callable[[EventFilter, StartPosition], AsyncGenerator[Step, None]]
"""Follows the log: a bookmark, then stored and new events (service.watch.service.WatchService.watch)."""


class LogMaintenance(Protocol):
    """Limits the log's size and finds what blocks its horizon. Every method raises Unavailable without Postgres.

    Each `trim_…` deletes at most `most` rows older than `older_than` and returns their number; 0 also while another
    node trims.
    """

    async def trim_events(self, older_than: timedelta, most: int) -> int:
        """Delete the oldest events below the horizon, by time of append, and move the oldest position with them."""

    async def trim_messages(self, older_than: timedelta, most: int) -> int:
        """Delete settled messages by the time at which they were accepted."""

    async def trim_event_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete rows of whatsmeow's buffer of decrypted messages, only of messages in the log.

        A row of an unacknowledged message stays, since WhatsApp may send the message again.
        """

    async def trim_retry_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete rows of whatsmeow's buffer of sent messages."""

    async def oldest_event_age(self) -> float:
        """Return the seconds since the oldest event was appended; 0 if there is none."""

    async def horizon_holder(self) -> OldestTransaction | None:
        """Return the oldest transaction in flight with an id, in any database of the server; None: there is none."""


class LeaseStore(Protocol):
    """Writes the leases of an owner. Expiry is by the database's clock."""

    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch of a session that this incarnation owns, for a new process. Raises LeaseLost."""

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        """Renew this incarnation's unexpired leases and announce the node, in one statement.

        Never waits for a row lock: a locked lease is left for the next renewal.
        """

    async def hand_over(self, session_id: str, incarnation: UUID, target: Node, ttl: float) -> bool:
        """Transfer the lease to the target. Only while no process of the session runs.

        False: nothing was changed, because the lease is lost, or the target is stopping or not live.
        """

    async def release(self, lease: Lease) -> bool:
        """Release a lease. Its epoch is 0 if this incarnation began none.

        False: nothing was changed, because the lease is lost or a newer epoch has begun.
        """

    async def release_orphaned_lease(self, lease: Lease) -> None:
        """Release a lease for which this node runs nothing, unless a newer epoch has begun."""


class Directory(Protocol):
    """Finds nodes, owners and sessions to claim. Expiry is by the database's clock.

    A node is live until its last announcement expires.
    """

    async def claim(
        self, incarnation: UUID, node: str, ttl: float, limit: int, *, pairings: bool, grace_s: float = CLAIM_GRACE_S
    ) -> Sequence[str]:
        """Claim at most `limit` unowned sessions that are active and due: only pairings, or only others.

        Sessions just activated come first, in that order; then the most recently active. For `grace_s` seconds a
        session in another node's claim slot (domain.placement) is left to that node.
        """

    async def release_all(self, incarnation: UUID) -> None:
        """Release this incarnation's leases on which no epoch was begun, and remove the node."""

    async def sessions_to_stop(self, incarnation: UUID) -> Sequence[str]:
        """Return owned sessions whose process must end: inactive, deleted, or with a revoked epoch.

        An epoch stays revoked even if its session is activated again; a restart revokes it as well.
        """

    async def fleet_counts(self, incarnation: UUID, grace_s: float = CLAIM_GRACE_S) -> FleetCounts:
        """Count the active sessions of all nodes that are not connected. `grace_s`: see `claim`."""

    async def others_are_awaited(self, seconds: float) -> bool:
        """Return whether a node that has not stopped was live within the last `seconds`, but is not live now."""

    async def holder(self, session_id: str) -> LeaseOwner | None:
        """Return the owner of a session; None if there is none, or its node never announced itself."""

    async def targets(self, incarnation: UUID) -> Sequence[Candidate]:
        """Return the live nodes, other than this one, that are not stopping."""

    async def fleet(self) -> Sequence[Candidate]:
        """Return all live nodes; none while one of them stops."""

    async def idlest(self, incarnation: UUID, limit: int) -> Sequence[str]:
        """Return connected sessions of this incarnation, the longest idle first."""

    async def neighbours(self, incarnation: UUID, scope: str) -> Mapping[UUID, str]:
        """Return the names of the other nodes of this scope that own sessions or count as living."""

    async def end_leases(self, dead: UUID) -> int | None:
        """End the leases of a dead node and return their number; None if Postgres still serves the node."""


class MessageStore(Protocol):
    """Stores the messages that one caller sends."""

    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        """Record the intent to send; return True with a new message, False with an earlier one. Fenced.

        Raises InvalidArgument (REQUEST_ID_REUSED) if the earlier one has another fingerprint.
        """

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """Return the message of this key, if any. Raises InvalidArgument (REQUEST_ID_REUSED) as `accept` does."""

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        """Record a message's outcome; a settled message stays as it is. Raises NotFound if its session was deleted."""

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """Advance messages to the state in a receipt, never back; return the ids that were found."""


# --- the rest ---------------------------------------------------------------------------------------------------


class Metrics:
    """Receives what the core counts, and discards it; service.telemetry.metrics counts."""

    def renewal(self, seconds: float, confirmed: int | None) -> None:
        """Count a renewal, with so many leases confirmed; None: it failed."""

    def stale_write(self, operation: str, reason: str) -> None:
        """Count a write that the fence refused."""

    def process_started(self, seconds: float) -> None:
        """Count a session process that runs, and how long its start took."""

    def start_outcome(self, lane: str, outcome: str) -> None:
        """Count the result of a start: a connection, or an end before there was one."""

    def process_ended(self, cause: str) -> None:
        """Count a session process that is dead."""

    def sent(self, seconds: float) -> None:
        """Count a message that WhatsApp acknowledged, and how long that took."""

    def event(self, kind: str) -> None:
        """Count an event that was committed."""

    def repeated(self, count: int) -> None:
        """Count inbound events that the log had already."""

    def open_stream(self) -> AbstractContextManager[object]:
        """Count a stream of Watch, for as long as the context lasts."""
        return nullcontext()

    def delivered(self) -> None:
        """Count a delivery to a stream."""

    def read_by_tail(self, lag: float) -> None:
        """Observe the seconds between an event's append and its read by the tail."""


class Publisher(Protocol):
    """Publishes live events and hints, here and to other nodes. They may be lost; never raises, never blocks."""

    def publish(self, events: Sequence[Event]) -> None:
        """Publish events to consumers."""

    def wake(self, session_id: str) -> None:
        """Notify listeners of this session that something about it changed."""

    def notify_work(self) -> None:
        """Notify reconcilers that a desired state changed or a lease is free.

        Not for what happens to an owned session: only its owner acts on that.
        """


class Wakeups(Protocol):
    """Passes hints to this node's listeners. Hints may be lost, so a listener also checks at intervals."""

    def listen(self, session_id: str) -> AbstractContextManager["Subscription"]:
        """Subscribe to hints about one session."""

    def listen_to_work(self) -> AbstractContextManager["Subscription"]:
        """Subscribe to hints that a desired state changed or a lease is free."""

    def listen_to_log(self) -> AbstractContextManager["Subscription"]:
        """Subscribe to hints that events of any session were appended."""

    def wake(self, session_id: str) -> None:
        """Notify this node's listeners of this session."""

    def notify_work(self) -> None:
        """Notify this node's listeners to work."""


class Subscription(Protocol):
    """Waits for hints for as long as its context lasts."""

    async def wait(self, timeout: float) -> None:
        """Wait until a hint has come since the last wait, or `timeout` seconds have passed."""
