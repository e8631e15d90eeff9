"""Ports that count what goes through them. What is inside does not know, and is not changed by it."""

import time
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from service.domain.disconnects import Cause
from service.domain.errors import LeaseLost, Unavailable
from service.domain.events import Event
from service.domain.lease import Announcement, Lease, Node, Renewal
from service.domain.observations import Connected, Ended, Observed
from service.domain.pace import Lane
from service.ports import LeaseStore, ProcessPool, Publisher, SendReply, SessionProcess, StartOrder
from service.telemetry.metrics import NodeMetrics
from service.telemetry.stale_writes import counting_refusals


class MeasuredLeases:
    """A LeaseStore whose renewals are timed and counted, and whose refusals are."""

    def __init__(self, inner: LeaseStore, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def renew(self, announced: Announcement, ttl: float) -> Renewal:
        """Renew, and count it as failed whatever keeps it from succeeding, being given up included."""
        started = time.perf_counter()
        try:
            renewal = await self._inner.renew(announced, ttl)
        except BaseException:
            self._metrics.renewal(time.perf_counter() - started, None)
            raise
        self._metrics.renewal(time.perf_counter() - started, len(renewal.renewed))
        return renewal

    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch."""
        with counting_refusals(self._metrics, "begin_epoch"):
            return await self._inner.begin_epoch(session_id, incarnation, ttl)

    async def hand_over(self, session_id: str, incarnation: UUID, heir: Node, ttl: float) -> bool:
        """Make the lease another node's."""
        return await self._inner.hand_over(session_id, incarnation, heir, ttl)

    async def release(self, lease: Lease) -> bool:
        """Give a session up. A lease that could not be handed over because it was lost comes here as well."""
        released = await self._inner.release(lease)
        if not released:
            self._metrics.stale_write("release", LeaseLost.reason)
        return released

    async def release_stray(self, lease: Lease) -> None:
        """Give up what nobody here works for."""
        await self._inner.release_stray(lease)


class MeasuredPool:
    """A ProcessPool whose processes are counted: those that run, and by what they ended."""

    def __init__(self, inner: ProcessPool, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def start(self, order: StartOrder) -> SessionProcess:
        """A running process."""
        started = time.perf_counter()
        try:
            process = await self._inner.start(order)
        except Unavailable:
            self._metrics.start_came_to(order.lane.value, "NO_PROCESS")
            raise
        self._metrics.process_started(time.perf_counter() - started)
        return MeasuredProcess(process, self._metrics, order.lane)


class MeasuredProcess:
    """A SessionProcess that is counted by what came of it, once, and by its end.

    What came of it is CONNECTED, or what ended it before. The cause of the end is what it reported, or how it was
    ended unheard.
    """

    def __init__(self, inner: SessionProcess, metrics: NodeMetrics, lane: Lane) -> None:
        self._inner = inner
        self._metrics = metrics
        self._lane: Lane | None = lane
        self._ended = False

    async def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield everything it reports."""
        async for batch in self._inner.observations():
            for observed in batch:
                if isinstance(observed.observation, Connected):
                    self._came_to("CONNECTED")
                if isinstance(observed.observation, Ended):
                    self._end(observed.observation.cause.value)
            yield batch

    def permit(self, until: float) -> None:
        """See SessionProcess, here and below."""
        self._inner.permit(until)

    def confirm(self, number: int) -> None:
        """Frames up to this one are committed."""
        self._inner.confirm(number)

    async def send_text(self, to: str, body: str, timeout: float) -> SendReply:
        """Send a text, timed."""
        started = time.perf_counter()
        reply = await self._inner.send_text(to, body, timeout)
        self._metrics.sent(time.perf_counter() - started)
        return reply

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        """Ask for a code."""
        return await self._inner.request_pairing_code(phone, timeout)

    async def log_out(self, timeout: float) -> None:
        """Unlink the device."""
        await self._inner.log_out(timeout)

    async def stop(self, grace: float) -> None:
        """End it gently."""
        await self._inner.stop(grace)
        self._end(Cause.STOPPED.value)

    async def kill(self) -> None:
        """End it at once."""
        await self._inner.kill()
        self._end("KILLED")

    def _end(self, cause: str) -> None:
        if not self._ended:
            self._ended = True
            self._came_to(cause)
            self._metrics.process_ended(cause)

    def _came_to(self, outcome: str) -> None:
        if self._lane is not None:
            self._metrics.start_came_to(self._lane.value, outcome)
            self._lane = None


class MeasuredPublisher:
    """A Publisher whose events are counted by type. What it drops is its own to count."""

    def __init__(self, inner: Publisher, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def publish(self, events: Sequence[Event]) -> None:
        """Count, and pass on."""
        for event in events:
            self._metrics.event(event.payload.kind)
        self._inner.publish(events)

    def wake(self, session_id: str) -> None:
        """Pass on."""
        self._inner.wake(session_id)

    def reconcile(self) -> None:
        """Pass on."""
        self._inner.reconcile()
