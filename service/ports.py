"""What the core needs from the world, and what it may assume of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from service.domain.events import Event, NewEvent
from service.domain.lease import Announcement, Lease, LeaseOwner, Node, Renewal
from service.domain.log_positions import START, LogPosition
from service.domain.maintenance import OldestTransaction
from service.domain.observations import Observed
from service.domain.pairing import PairingCode
from service.domain.placement import CLAIM_GRACE_S, Candidate
from service.domain.records import Account, MessageState, OutboundMessage, Outcome, Pairing, Session
from service.domain.send_failures import SendFailure
from service.domain.session import Condition, State, Transition
from service.domain.start_scheduler import Lane
from service.domain.survey import Survey
from service.domain.watch import EventFilter, LogBounds, LogPage, StartPosition, Step

# --- session processes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartOrder:
    """Which session a new process is to be."""

    session_id: str
    epoch: int
    jid: str = field(repr=False)
    """The device to resume; empty: pair a new one."""
    proxy_url: str = field(repr=False)
    """Empty: none."""
    permitted_until: float
    """Seconds on time.monotonic(); the process is dead by then unless it is permitted further."""
    lane: Lane = Lane.FALLEN
    """In which it waited for its turn, and so why it is started: for those who count."""


@dataclass(frozen=True)
class SendReply:
    """WhatsApp's server has the message."""

    message_id: str
    sent_time: datetime


class CallFailed(Exception):
    """A call to a session process did not succeed.

    `certain`: nothing was done, and the words say why. Otherwise it may have been: the process ended, or did not
    answer in time. `failure`: of a message, what kind of failure it is if it is certain.
    """

    def __init__(self, message: str, *, certain: bool, failure: SendFailure = SendFailure.NOT_SENT) -> None:
        super().__init__(message)
        self.certain = certain
        self.failure = failure


class SessionProcess(Protocol):
    """One process that is one session for a while. Never reused, never reconnected by us: replaced."""

    def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield everything it reports, in order, all that waits at a time.

        The last one is always an `Ended`, and then the process is dead for certain. It comes for every end: what the
        process said last, or PROCESS_DIED with its exit status in words.
        """

    def permit(self, until: float) -> None:
        """Let it go on until this moment of time.monotonic(). Never blocks; a moment before the last one is ignored."""

    def confirm(self, number: int) -> None:
        """Tell it that every frame up to this number is committed: it acknowledges their event to WhatsApp."""

    async def send_text(self, to: str, body: str, timeout: float) -> SendReply:
        """Send a text to a JID. Raises CallFailed; after `timeout` seconds with certain=False."""

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        """Ask WhatsApp for a code to type on the phone. Raises CallFailed."""

    async def log_out(self, timeout: float) -> None:
        """Unlink the device at WhatsApp. Raises CallFailed."""

    async def stop(self, grace: float) -> None:
        """Have it disconnect, finish the event in hand and exit; kill it after `grace` seconds.

        Returns when it is dead.
        """

    async def kill(self) -> None:
        """Kill it and return when it is dead. Never returns while it lives, however long that takes."""


class ProcessPool(Protocol):
    """Makes session processes."""

    async def start(self, order: StartOrder) -> SessionProcess:
        """A running process. Raises Unavailable if none can be made now."""


class StartPermit(Protocol):
    """Leave to start one session process: use it, or give it back. Either may be done again, and then does nothing."""

    @property
    def lane(self) -> Lane:
        """In which it was waited for."""

    def use(self) -> bool:
        """The process is started now; False if the turn was held for too long: then wait for another one."""

    def give_back(self) -> None:
        """No process is started."""


class PermitSource(Protocol):
    """Where starts of session processes wait for their turn (sessions.start_gate.StartGate)."""

    async def turns(self, lane: Lane, wants: int) -> Sequence[StartPermit]:
        """At least one turn, and at most so many."""


# --- storage ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewSession:
    """What a caller gives of a new session."""

    session_id: str
    name: str
    user_id: str
    labels: Mapping[str, str]
    proxy_url: str = field(repr=False)
    request_id: str


@dataclass(frozen=True)
class SessionFilter:
    """Which sessions to list; empty values do not filter."""

    user_id: str = ""
    states: tuple[State, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """The caller's own fields to change; None leaves one as it is."""

    name: str | None = None
    user_id: str | None = None
    labels: Mapping[str, str] | None = None
    proxy_url: str | None = field(default=None, repr=False)


Decide = Callable[[Condition, datetime], Transition]
"""From a session's condition, read under its lock, and the database's time to the transition to write."""


class SessionStore(Protocol):
    """Sessions and their pairings. Every method is one transaction; Unavailable when the database is away."""

    async def create(self, new: NewSession) -> Session:
        """A new session, or the one that the same request_id made earlier.

        Raises AlreadyExists if the id is taken, InvalidArgument (REQUEST_ID_REUSED) if that one had another content.
        """

    async def get(self, session_id: str) -> Session:
        """Raises NotFound."""

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        """Sessions with an id behind `after`, in order."""

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        """Raises NotFound, or Conflict if `etag` is given and not the current one."""

    async def delete(self, session_id: str, *, force: bool) -> None:
        """Remove it with its credentials. Raises NotFound, FailedPrecondition (SESSION_PAIRED) without force."""

    async def decide(self, session_id: str, decide: Decide) -> tuple[Session, Transition, Sequence[Event]]:
        """Write what `decide` makes of the session's condition, with the events that follow. Not fenced: for wishes."""

    async def pairing(self, session_id: str) -> tuple[Session, Pairing]:
        """The session with its pairing in progress or last one. Raises NotFound."""


@dataclass(frozen=True)
class Resume:
    """What a new process is to be: the device to resume, or none, or none although there should be one."""

    wanted: bool
    """False: the session is to be left alone (or does not exist any more)."""
    jid: str = field(default="", repr=False)
    """Empty: pair a new one."""
    missing: bool = False
    """The session has credentials, but the database does not have them."""
    proxy_url: str = field(default="", repr=False)


class OwnedSessionStore(Protocol):
    """What the owner of a session writes. Every method is fenced: LeaseLost if the epoch is not the current one.

    EpochRevoked if it is, but what it was begun for is not wanted any more; NotFound if the session was deleted.
    """

    async def observe(
        self, lease: Lease, decide: Decide, account: Account | None
    ) -> tuple[Session, Transition, Sequence[Event]]:
        """Write what `decide` makes of the condition, what became known of the account, and the events."""

    async def show_code(self, lease: Lease, code: PairingCode, identity: bytes) -> Sequence[Event]:
        """Bind the session to the identity key and make the code the current one, in one transaction."""

    async def prepare(self, lease: Lease) -> Resume:
        """What a new process of this session is to be, before it starts and while none runs.

        Devices that the session discarded are deleted for good, a device whose scan was not recorded is found by its
        identity key and bound, and messages that an earlier process was sending become OUTCOME_UNKNOWN. What earlier
        processes had sent to Postgres is carried out by then, or never.
        """

    async def sweep(self, lease: Lease) -> None:
        """Delete the devices that the session discarded. Only while no process of it runs."""


@dataclass(frozen=True)
class Appended:
    """What became of events that were given to the log."""

    events: Sequence[Event] = ()
    """Those that are new, in their order."""
    message_ids: Sequence[str] = ()
    """WhatsApp's ids of the session's own messages that receipts among the events brought further."""


class EventLog(Protocol):
    """The durable log of what comes in."""

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append what came in, and bring the messages further that its receipts are about, in one transaction.

        Fenced: LeaseLost if the epoch is not the current one, NotFound if the session was deleted (also if another one
        has its id since); nothing is written then. A revoked epoch may still append. An event of an origin that the log
        has is not appended again, nor returned. One that the log will never take is left out, and told to the operator.
        """


class LogReader(Protocol):
    """The durable log, in the order of places. Every method: Unavailable when the database is away."""

    async def bounds(self, asked: LogPosition = START) -> LogBounds:
        """Which places there are, and whether `asked` is one."""

    async def check_known(self, session_ids: Sequence[str]) -> None:
        """Raises NotFound for the first id of which there is neither a session nor was there ever an event."""

    async def read(self, after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        """At most `limit` of the next events after a place, those of them that are wanted; None: some are deleted.

        Nothing above the horizon: what is not given, and lies before the page's end, will never be there.
        """


Read = Callable[[LogPosition, EventFilter, int], Awaitable[LogPage | None]]
"""LogReader.read."""

Watch = Callable[[EventFilter, StartPosition], AsyncGenerator[Step, None]]
"""Follows the log (service.watch.service.Watching.watch): a bookmark, then what there is and what comes."""


class LogMaintenance(Protocol):
    """What keeps the log from growing without end, and sees what holds it up. Unavailable when the database is away."""

    async def trim_events(self, older_than: timedelta, most: int) -> int:
        """Delete at most so many events that were appended longer ago, oldest places first; how many were.

        Together with them moves the place up to which events are deleted. None above the horizon: nobody has had them
        yet. 0 too if another node is at it.
        """

    async def trim_messages(self, older_than: timedelta, most: int) -> int:
        """Delete at most so many messages that were accepted longer ago and are settled; how many were."""

    async def trim_event_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete at most so many rows of whatsmeow's buffer of decrypted messages; how many were.

        Only of messages that are in the log: what was not acknowledged stays, since WhatsApp may send it again.
        """

    async def trim_retry_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete at most so many rows of whatsmeow's buffer of sent messages; how many were."""

    async def oldest_event_age(self) -> float:
        """Seconds since the oldest event was appended; 0 if there is none."""

    async def horizon_holder(self) -> OldestTransaction | None:
        """The oldest transaction in flight that has a number, of whatever database; None if there is none."""


class LeaseStore(Protocol):
    """What an owner does with its leases. Expiry is by the database's clock."""

    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch of a session this incarnation holds, for a new process. Raises LeaseLost."""

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        """Renew every lease of this incarnation that has not expired; what is not returned is not its own any more.

        Waits for nobody: a lease whose row somebody holds is left for the next renewal. The same statement tells other
        nodes where this one is called, and what it takes.
        """

    async def hand_over(self, session_id: str, incarnation: UUID, target: Node, ttl: float) -> bool:
        """Make the lease another node's. Only when no process of the session runs.

        False: it is lost, or the heir does not go on; nothing was changed.
        """

    async def release(self, lease: Lease) -> bool:
        """Give a session up; the epoch is 0 if none was begun here.

        False: it is not this incarnation's any more, or another epoch of it has begun, which what comes late must not
        end; nothing was changed.
        """

    async def release_orphaned_lease(self, lease: Lease) -> None:
        """Give up a lease that nobody here works for; nothing happens if another epoch of it has begun meanwhile."""


class Directory(Protocol):
    """Which nodes there are, who owns what, and what is to be claimed. Expiry is by the database's clock."""

    async def claim(
        self, incarnation: UUID, node: str, ttl: float, limit: int, *, pairings: bool, patience: float = CLAIM_GRACE_S
    ) -> Sequence[str]:
        """Take at most `limit` sessions that are wanted, due and nobody's: pairings only, or all others only.

        What was just asked for comes first, who came first before others; then who was active last. What has another
        node's place (domain.placement) is left to it for `patience` seconds.
        """

    async def release_all(self, incarnation: UUID) -> None:
        """Give up what this incarnation has claimed, or been given, and not begun; and be called no more."""

    async def unwanted(self, incarnation: UUID) -> Sequence[str]:
        """Sessions this incarnation holds whose process must end: unwanted or deleted, even if wanted again since.

        Those to be restarted too, until their next epoch begins.
        """

    async def survey(self, incarnation: UUID, patience: float = CLAIM_GRACE_S) -> Survey:
        """How things stand with all that is wanted and not connected, whoever owns it. `patience`: see `claim`."""

    async def wanted(self, freshness: float) -> int:
        """How many paired sessions are to be connected, counted no more than `freshness` seconds ago."""

    async def others_are_awaited(self, seconds: float) -> bool:
        """Some node was heard of `seconds` ago or later, has not stopped, and is not heard of now."""

    async def holder(self, session_id: str) -> LeaseOwner | None:
        """Who owns a session now; None if nobody does, or a node that was never heard of."""

    async def targets(self, incarnation: UUID) -> Sequence[Candidate]:
        """Nodes that go on, other than this one."""

    async def fleet(self) -> Sequence[Candidate]:
        """Nodes that share sessions: all that go on; none while one of them stops."""

    async def idlest(self, incarnation: UUID, limit: int) -> Sequence[str]:
        """Sessions of this incarnation that are connected, those that have been idle for longest first."""

    async def neighbours(self, incarnation: UUID, scope: str) -> Mapping[UUID, str]:
        """Return the names of the other nodes of this scope that own something or count as living."""

    async def end_leases(self, dead: UUID) -> int | None:
        """End the leases of a node that is dead and return how many; None if Postgres still serves it."""


class MessageStore(Protocol):
    """Messages that callers send."""

    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        """Write the intent down; True if it is new, False with the earlier one. Fenced.

        Raises InvalidArgument (REQUEST_ID_REUSED) if the earlier one had another fingerprint.
        """

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """The message of this key, if any; raises InvalidArgument (REQUEST_ID_REUSED) on another fingerprint."""

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        """Write down what became of it, once: a message that is settled already stays as it is.

        Raises NotFound if the session was deleted meanwhile, and its messages with it.
        """

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """A receipt says how far messages came; never backwards. The ids of those that were found."""


# --- the rest ---------------------------------------------------------------------------------------------------


class Metrics:
    """What the core counts. Nothing is done with it here; service.telemetry.metrics counts."""

    def renewal(self, seconds: float, confirmed: int | None) -> None:
        """Count a renewal, with so many leases confirmed; None: it failed."""

    def stale_write(self, operation: str, reason: str) -> None:
        """Count a write that the fence refused."""

    def process_started(self, seconds: float) -> None:
        """Count a session process that runs, and how long its start took."""

    def start_came_to(self, lane: str, outcome: str) -> None:
        """Count what a start led to: a connection, or an end before there was one."""

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

    def given(self) -> None:
        """Count an event that a stream was given."""

    def read_by_tail(self, lag: float) -> None:
        """Observe how many seconds after its append the tail came to an event."""


class Publisher(Protocol):
    """Live events. Losable: never raises, never blocks."""

    def publish(self, events: Sequence[Event]) -> None:
        """Have consumers told."""

    def wake(self, session_id: str) -> None:
        """Have whoever waits for something about this session look again, here and on other nodes."""

    def reconcile(self) -> None:
        """Have those who claim and stop sessions look again, here and on other nodes: a wish changed, a lease is free.

        Not for what happens to a session: that is its owner's alone.
        """


class Wakeups(Protocol):
    """Hints that something about a session changed. They may be lost: whoever waits looks again by itself too."""

    def listen(self, session_id: str) -> AbstractContextManager["Subscription"]:
        """Hints about one session from now on."""

    def listen_to_work(self) -> AbstractContextManager["Subscription"]:
        """Hints that a wish changed or a lease is free, from now on."""

    def listen_to_log(self) -> AbstractContextManager["Subscription"]:
        """Hints that something was appended to the log, of whatever session, from now on."""

    def wake(self, session_id: str) -> None:
        """Have whoever listens here for this session look again."""

    def reconcile(self) -> None:
        """Have whoever listens here for work look again."""


class Subscription(Protocol):
    """One listener, for as long as its context lasts."""

    async def wait(self, timeout: float) -> None:
        """Until a hint came since the last wait, or `timeout` seconds have passed."""
