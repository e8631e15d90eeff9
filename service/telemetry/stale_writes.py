"""Stores that count what the fence refuses: writes of an epoch that is over, by a node that did not know it yet.

None is an error. Each is a write that would have changed what another owner, or a later wish, has decided since.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.domain.errors import LeaseLost
from service.domain.events import Event, NewEvent
from service.domain.lease import Lease
from service.domain.pairing import PairingCode
from service.domain.records import Account, MessageState, OutboundMessage, Outcome, Session
from service.domain.session import Transition
from service.ports import Appended, Decide, EventLog, MessageStore, OwnedSessionStore, Resume
from service.telemetry.metrics import NodeMetrics


@contextmanager
def counting_refusals(metrics: NodeMetrics, operation: str) -> Iterator[None]:
    """Count it if what is done in the block is refused as stale."""
    try:
        yield
    except LeaseLost as error:
        metrics.stale_write(operation, error.reason)
        raise


class CountedOwnedSessions:
    """An OwnedSessionStore whose refusals are counted."""

    def __init__(self, inner: OwnedSessionStore, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def observe(
        self, lease: Lease, decide: Decide, account: Account | None
    ) -> tuple[Session, Transition, Sequence[Event]]:
        """See OwnedSessionStore, here and below."""
        with counting_refusals(self._metrics, "observe"):
            return await self._inner.observe(lease, decide, account)

    async def show_code(self, lease: Lease, code: PairingCode, identity: bytes) -> Sequence[Event]:
        """Make the code the current one."""
        with counting_refusals(self._metrics, "show_code"):
            return await self._inner.show_code(lease, code, identity)

    async def prepare(self, lease: Lease) -> Resume:
        """What a new process is to be."""
        with counting_refusals(self._metrics, "prepare"):
            return await self._inner.prepare(lease)

    async def sweep(self, lease: Lease) -> None:
        """Delete what the session discarded."""
        with counting_refusals(self._metrics, "sweep"):
            await self._inner.sweep(lease)


class CountedEventLog:
    """An EventLog whose refusals are counted, and what came to it again."""

    def __init__(self, inner: EventLog, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append what came in."""
        with counting_refusals(self._metrics, "append"):
            appended = await self._inner.append(lease, events)
        self._metrics.repeated(len(events) - len(appended.events))
        return appended


class CountedMessages:
    """A MessageStore whose refusals are counted."""

    def __init__(self, inner: MessageStore, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        """See MessageStore, here and below."""
        with counting_refusals(self._metrics, "accept"):
            return await self._inner.accept(lease, request_id, to, fingerprint)

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        """The message of this key."""
        return await self._inner.find(session_id, request_id, fingerprint)

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        """Write the outcome down. What a later epoch has given up as unknown stays so, and that is a refusal."""
        settled = await self._inner.settle(session_id, request_id, outcome)
        if settled.state is MessageState.OUTCOME_UNKNOWN and outcome.state is not MessageState.OUTCOME_UNKNOWN:
            self._metrics.stale_write("settle", LeaseLost.reason)
        return settled

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        """How far messages came."""
        return await self._inner.delivered(session_id, message_ids, state)
