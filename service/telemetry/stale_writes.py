"""Stores that count what the fence refuses: writes of an epoch that is over, by a node that did not know it yet.

None is an error. Each is a write that would have changed what another owner, or a later wish, has decided since.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

from service.domain.errors import LeaseLost
from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.records import MessageState, OutboundMessage, Outcome
from service.ports import Appended, EventLog, MessageStore, OwnedSessionStore
from service.telemetry.metrics import NodeMetrics

P = ParamSpec("P")
T = TypeVar("T")


def counting_refusals(
    metrics: NodeMetrics, operation: str, write: Callable[P, Coroutine[Any, Any, T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same write; it is counted if it is refused as stale."""

    async def counted(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await write(*args, **kwargs)
        except LeaseLost as error:
            metrics.stale_write(operation, error.reason)
            raise

    return counted


class CountedOwnedSessions:
    """An OwnedSessionStore whose refusals are counted."""

    def __init__(self, inner: OwnedSessionStore, metrics: NodeMetrics) -> None:
        self.observe = counting_refusals(metrics, "observe", inner.observe)
        self.show_code = counting_refusals(metrics, "show_code", inner.show_code)
        self.prepare = counting_refusals(metrics, "prepare", inner.prepare)
        self.sweep = counting_refusals(metrics, "sweep", inner.sweep)


class CountedEventLog:
    """An EventLog whose refusals are counted, and what came to it again."""

    def __init__(self, inner: EventLog, metrics: NodeMetrics) -> None:
        self._append = counting_refusals(metrics, "append", inner.append)
        self._metrics = metrics

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append what came in."""
        appended = await self._append(lease, events)
        self._metrics.repeated(len(events) - len(appended.events))
        return appended


class CountedMessages:
    """A MessageStore whose refusals are counted."""

    def __init__(self, inner: MessageStore, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self.accept = counting_refusals(metrics, "accept", inner.accept)
        # Never refused as stale.
        self.find = inner.find
        self.delivered = inner.delivered

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        """Write the outcome down. What a later epoch has given up as unknown stays so, and that is a refusal."""
        settled = await self._inner.settle(session_id, request_id, outcome)
        if settled.state is MessageState.OUTCOME_UNKNOWN and outcome.state is not MessageState.OUTCOME_UNKNOWN:
            self._metrics.stale_write("settle", LeaseLost.reason)
        return settled
