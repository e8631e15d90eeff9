"""Declares what runs sessions: session processes, their pool, and the permits to start them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from service.domain.media import MediaKind, StoredMedia
from service.domain.observations import Observed
from service.domain.records import TypedPayload
from service.domain.send_failures import SendFailure
from service.domain.start_scheduler import Lane


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
    chat: str = field(default="", repr=False)
    """The chat as WhatsApp has it."""


class CallFailed(Exception):
    """A call to a session process did not succeed.

    `certain`: nothing was done, and the message says why. Otherwise the outcome is unknown: the process ended, or did
    not answer in time. `kind`: the name of a certain failure, a SendFailure of a send and else a
    CallFailure. `is_answer`: the process reports that the library failed; otherwise the library may still be at it.
    """

    def __init__(
        self,
        message: str,
        *,
        certain: bool,
        failure: SendFailure = SendFailure.NOT_SENT,
        kind: str = "",
        is_answer: bool = False,
    ) -> None:
        super().__init__(message)
        self.certain = certain
        self.failure = SendFailure.__members__.get(kind, failure)
        self.kind = kind
        self.is_answer = is_answer


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

    async def send(self, to: str, content: TypedPayload, timeout: float, secret: bytes = b"") -> SendReply:
        """Send a content (zap.worker.v1.Send.content) to a JID. Raises CallFailed, as `call` does.

        `secret`: 32 random bytes that the message carries; empty: it carries none, which a poll cannot do without.
        """

    async def call(self, request: TypedPayload, timeout: float) -> TypedPayload:
        """Have any request of zap/worker/v1/calls.proto carried out, and return its result.

        Raises CallFailed; after `timeout` seconds with certain=False.
        """

    async def upload(self, kind: MediaKind, descriptor: int, size: int, timeout: float) -> StoredMedia:
        """Store a file, given as a sealed memfd of `size` bytes, at WhatsApp. Raises CallFailed, as `call` does.

        The caller keeps the descriptor. The result has no MIME type and no time.
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
