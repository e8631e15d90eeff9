"""Ports that count what goes through them. What is inside does not know, and is not changed by it."""

import time
from collections.abc import AsyncIterator, Sequence

from service.domain.disconnects import Cause
from service.domain.errors import LeaseLost, Unavailable
from service.domain.events import Event
from service.domain.lease import Announcement, Lease, Renewal
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
        self.begin_epoch = counting_refusals(metrics, "begin_epoch", inner.begin_epoch)
        # A lease that could not be handed over because it was lost comes to `release` as well.
        self.hand_over = inner.hand_over
        self.release_stray = inner.release_stray

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

    async def release(self, lease: Lease) -> bool:
        """Give a session up."""
        released = await self._inner.release(lease)
        if not released:
            self._metrics.stale_write("release", LeaseLost.reason)
        return released


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
        # Not measured.
        self.permit = inner.permit
        self.confirm = inner.confirm
        self.request_pairing_code = inner.request_pairing_code
        self.log_out = inner.log_out

    async def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield everything it reports."""
        async for batch in self._inner.observations():
            for observed in batch:
                if isinstance(observed.observation, Connected):
                    self._came_to("CONNECTED")
                if isinstance(observed.observation, Ended):
                    self._end(observed.observation.cause.value)
            yield batch

    async def send_text(self, to: str, body: str, timeout: float) -> SendReply:
        """Send a text, timed."""
        started = time.perf_counter()
        reply = await self._inner.send_text(to, body, timeout)
        self._metrics.sent(time.perf_counter() - started)
        return reply

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
        # Hints are not counted.
        self.wake = inner.wake
        self.reconcile = inner.reconcile

    def publish(self, events: Sequence[Event]) -> None:
        """Count, and pass on."""
        for event in events:
            self._metrics.event(event.payload.kind)
        self._inner.publish(events)
