"""What the servicers ask of the core. `service.sessions` has the classes that fit; tests have one in memory.

Every method raises errors of `service.domain.errors` and no others.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Protocol

from service.domain.pairing import PairingStep
from service.domain.records import OutboundMessage, Session
from service.domain.watched import EventFilter, Start, Step
from service.ports import Changes, NewSession, SessionFilter


class Sessions(Protocol):
    """The use-cases of sessions."""

    async def create(self, new: NewSession) -> Session:
        """A new session, or the one made earlier by the same request; an empty session_id is generated."""

    async def activate(self, session_id: str) -> Session:
        """Want it connected. Idempotent."""

    async def deactivate(self, session_id: str) -> Session:
        """Want it left alone. Idempotent."""

    async def restart(self, session_id: str) -> Session:
        """Have another process run it, now."""

    async def status(self, session_id: str) -> Session:
        """The session as it is now."""

    async def log_out(self, session_id: str, timeout: float) -> Session:
        """Unlink the device at WhatsApp and erase its credentials."""

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        """Sessions with an id behind `after`, in the order of their ids."""

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        """Change the caller's own fields; Conflict if `etag` is given and is not the current one."""

    async def delete(self, session_id: str, *, force: bool) -> None:
        """Remove it; a paired one only with `force`."""

    async def request_pairing_code(self, session_id: str, phone: str, timeout: float) -> tuple[str, datetime]:
        """A code to type on the phone (its digits, without a +), and when the attempt ends."""

    def pairing_steps(self, session_id: str) -> AsyncGenerator[PairingStep, None]:
        """The current code at once, every later one, and then how it ended. Closing it leaves nothing behind.

        Raises NotFound or FailedPrecondition before the first item.
        """


class Sending(Protocol):
    """The use-cases of messages that callers send."""

    async def send_text(self, session_id: str, to: str, body: str, request_id: str, timeout: float) -> OutboundMessage:
        """Send to a JID, once per request_id; what became of it, or that nobody knows, within `timeout` s."""

    async def get(self, session_id: str, request_id: str) -> OutboundMessage:
        """The message as it is now."""


class Watching(Protocol):
    """The use-case of the event log."""

    def watch(self, wanted: EventFilter, start: Start) -> AsyncGenerator[Step, None]:
        """A bookmark, then what there is from `start` on and what comes, for ever. Closing it leaves nothing behind.

        Raises InvalidArgument, OutOfRange, NotFound or Unavailable before the first step; OutOfRange and
        ConsumerTooSlow later.
        """
