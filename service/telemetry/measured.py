"""Ports that count what goes through them. What is inside does not know, and is not changed by it."""

import time
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from service.domain.disconnects import Cause
from service.domain.events import Event
from service.domain.lease import Lease
from service.domain.observations import Ended, Observed
from service.ports import LeaseStore, ProcessPool, Publisher, SendReply, SessionProcess, StartOrder
from service.telemetry.metrics import NodeMetrics


class MeasuredLeases:
    """A LeaseStore whose renewals are timed and counted."""

    def __init__(self, inner: LeaseStore, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def renew(self, incarnation: UUID, ttl: float) -> Sequence[Lease]:
        """Renew, and count it as failed whatever keeps it from succeeding, being given up included."""
        started = time.perf_counter()
        try:
            leases = await self._inner.renew(incarnation, ttl)
        except BaseException:
            self._metrics.renewal(time.perf_counter() - started, None)
            raise
        self._metrics.renewal(time.perf_counter() - started, len(leases))
        return leases

    async def claim(self, incarnation: UUID, node: str, ttl: float, limit: int) -> Sequence[str]:
        """See LeaseStore, here and below."""
        return await self._inner.claim(incarnation, node, ttl, limit)

    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        """Raise the epoch."""
        return await self._inner.begin_epoch(session_id, incarnation, ttl)

    async def release(self, session_id: str, incarnation: UUID) -> None:
        """Give a session up."""
        await self._inner.release(session_id, incarnation)

    async def release_all(self, incarnation: UUID) -> None:
        """Give everything up."""
        await self._inner.release_all(incarnation)

    async def unwanted(self, incarnation: UUID) -> Sequence[str]:
        """Sessions that nobody wants any more."""
        return await self._inner.unwanted(incarnation)

    async def next_due(self, incarnation: UUID) -> float | None:
        """Seconds until a session becomes due."""
        return await self._inner.next_due(incarnation)


class MeasuredPool:
    """A ProcessPool whose processes are counted: those that run, and by what they ended."""

    def __init__(self, inner: ProcessPool, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def start(self, order: StartOrder) -> SessionProcess:
        """A running process."""
        started = time.perf_counter()
        process = await self._inner.start(order)
        self._metrics.process_started(time.perf_counter() - started)
        return MeasuredProcess(process, self._metrics)


class MeasuredProcess:
    """A SessionProcess whose end is counted once, by its cause: what it reported, or how it was ended unheard."""

    def __init__(self, inner: SessionProcess, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self._ended = False

    async def observations(self) -> AsyncIterator[Observed]:
        """Everything it reports."""
        async for observed in self._inner.observations():
            if isinstance(observed.observation, Ended):
                self._end(observed.observation.cause.value)
            yield observed

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
            self._metrics.process_ended(cause)


class MeasuredPublisher:
    """A Publisher whose events are counted by type. What it drops is its own to count."""

    def __init__(self, inner: Publisher, metrics: NodeMetrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def publish(self, events: Sequence[Event]) -> None:
        """Count, and pass on."""
        for event in events:
            self._metrics.event(type(event.payload).__name__)
        self._inner.publish(events)

    def wake(self, session_id: str) -> None:
        """Pass on."""
        self._inner.wake(session_id)
