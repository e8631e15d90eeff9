"""Runs one owned session: one process after the other, from the claim of its lease to its release.

    claimed ─▶ begin epoch ─▶ prepare ─▶ process ─▶ observations ─▶ ended ─▶ back-off ─▶ permit ─▶ begin epoch …
                                 │                                    │
                                 └── undesired ───▶ release ◀─────────┘ (released, or the node stops)

Each process needs a start permit of the node's StartLimiter; the first one uses the permit that the claim took.

Every process ends with a last observation, whatever ended it (a caller, a lost lease, a crash), so there is one way
out. The lease is released only after the process is known to be dead, and never after it was lost.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog

from service.domain import observations as seen
from service.domain.disconnect_policy import Cause
from service.domain.errors import EpochRevoked, LeaseLost, NotFound, Unavailable, ZapError
from service.domain.lease import Lease, LeaseTimes, Node
from service.domain.session import Directive, ProcessStarted, State
from service.ports.bus import Publisher
from service.ports.eventlog import EventLog
from service.ports.leases import LeaseStore
from service.ports.processes import ProcessPool, SessionProcess, StartOrder, StartPermit
from service.ports.sessions import OwnedSessionStore, Resume
from service.sessions.observation_sink import ObservationSink, grouped
from service.sessions.start_limiter import StartLimiter
from service.sessions.start_slot import StartSlot

log = structlog.get_logger(__name__)

STOP_GRACE_S = 7.0
"""Seconds that a process has to disconnect and finish the current event before it is killed; it needs at most 5."""

_AROUND_A_RECONNECT = (seen.Connected, seen.Disconnected, seen.KeepAliveTimeout)
"""Observations just before or after a connect that the library makes by itself."""


@dataclass(frozen=True)
class RunnerPorts:
    """Holds what every runner of a node works with."""

    owned: OwnedSessionStore
    leases: LeaseStore
    events: EventLog
    pool: ProcessPool
    publisher: Publisher
    times: LeaseTimes
    gate: StartLimiter


class Runner:
    """Runs one session that this node's incarnation has claimed."""

    def __init__(
        self, session_id: str, incarnation: UUID, ports: RunnerPorts, start_permit: StartPermit | None = None
    ) -> None:
        """`start_permit`: the one that was taken for the claim."""
        self.session_id = session_id
        self.is_handed_over = False
        """Whether the target of the hand-over has the lease now."""
        self._incarnation = incarnation
        self._ports = ports
        self._lease: Lease | None = None
        self._process: SessionProcess | None = None
        self._proxy_url = ""
        self._safe_until = 0.0
        self._is_stopping = False
        self._target: Node | None = None
        self._lost = False
        self._start_slot = StartSlot(ports.gate, start_permit)
        self._stopping_process: SessionProcess | None = None
        self._interrupted = asyncio.Event()
        self._sink = ObservationSink(
            session_id, ports.owned, ports.events, ports.publisher, ports.times.ttl, lambda: self._lost
        )
        self.early_receipts = self._sink.early_receipts
        self._log = log.bind(session_id=session_id)

    # --- for other parts of the node ----------------------------------------------------------------------------

    @property
    def connection(self) -> tuple[Lease, SessionProcess] | None:
        """The lease and the process to call, while the session is connected and the lease is valid."""
        return self._usable() if self._sink.state is State.CONNECTED else None

    @property
    def pairing(self) -> tuple[Lease, SessionProcess] | None:
        """The lease and the process to ask for a pairing code, while the session is being paired."""
        return self._usable() if self._sink.state is State.PAIRING else None

    @property
    def is_running(self) -> bool:
        """Return whether the session has a process."""
        return self._process is not None

    @property
    def is_waiting(self) -> bool:
        """Return whether the session waits for a start permit."""
        return self._start_slot.is_waiting

    @property
    def safe_until(self) -> float:
        """The time (time.monotonic()) until which this node may act for the session."""
        return self._safe_until

    def permit(self, safe_until: float) -> None:
        """Extend the run permit after a renewal of the lease."""
        self._safe_until = max(self._safe_until, safe_until)
        if self._process is not None:
            self._process.permit(self._safe_until)

    def lose(self) -> None:
        """Kill the process, because the lease is lost. Nothing is written or released any more."""
        if self._lost:
            return
        self._log.warning("Lease lost; killing the session process.")
        self._lost = True
        self._interrupt_waits()
        if self._process is not None:
            _spawn(self._process.kill())

    def hand_over_or_stop(self, target: Node | None = None) -> None:
        """Stop the process gently, then hand the lease over to `target`, or release it."""
        self._target = target
        self._is_stopping = True
        self._stop_process()

    def restart(self) -> None:
        """Replace the process without a wait."""
        self._sink.restarts.reset()
        self._stop_process()

    def unwanted(self) -> None:
        """Stop the process, because the session was deactivated, deleted or restarted."""
        self._stop_process()

    async def run(self) -> None:
        """Run the session until it is given up. Its lease is released or lost then."""
        try:
            while not self._is_over():
                if await self._run_epoch() is Directive.RELEASE:
                    break
        except LeaseLost as error:
            self._lost = True
            self._log.warning("Lease lost; giving the session up.", cause=error.message)
        finally:
            self._start_slot.give_back()
            await asyncio.shield(self._give_up())

    # --- one epoch ----------------------------------------------------------------------------------------------

    async def _run_epoch(self) -> Directive:
        # After an interruption the desired state may have changed, so it is read without a wait for a permit.
        await self._start_slot.wait(self._sink.lane, self._sink.active_at, skip_wait=self._interrupted.is_set())
        if self._is_over():
            return Directive.RELEASE
        # Clear before the desired state is read, so that a later change is not missed.
        self._interrupted.clear()
        self._lease = lease = await self._sink.until_written(self._begin_epoch)
        try:
            resume = await self._sink.until_written(lambda: self._ports.owned.prepare(lease))
            if not resume.wanted or self._is_over():
                return Directive.RELEASE
            if not self._start_slot.has_permit:
                # The wait was interrupted, but the session is still to run.
                return Directive.REPLACE
            directive = await self._run_process(lease, resume)
        except (EpochRevoked, NotFound):
            # Deactivated or deleted since this epoch began, and perhaps activated again: the next epoch finds out.
            return Directive.REPLACE
        if directive is Directive.REPLACE:
            await self._wait_until_due()
        return directive

    async def _begin_epoch(self) -> Lease:
        sent = time.monotonic()
        times = self._ports.times
        lease = await self._ports.leases.begin_epoch(self.session_id, self._incarnation, times.ttl)
        self._safe_until = times.safe_until(sent)
        return lease

    async def _run_process(self, lease: Lease, resume: Resume) -> Directive:
        await self._sink.apply(lease, ProcessStarted())
        if resume.missing:
            return await self._sink.end(lease, Cause.DEVICE_MISSING)
        while (permit := self._start_slot.use()) is None:
            skip_wait = self._interrupted.is_set()
            await self._start_slot.wait(self._sink.lane, self._sink.active_at, skip_wait=skip_wait)
            if not self._start_slot.has_permit:
                return Directive.REPLACE
        order = StartOrder(
            self.session_id,
            lease.epoch,
            resume.jid,
            resume.proxy_url,
            self._safe_until,
            lane=permit.lane,
        )
        try:
            self._process = await self._ports.pool.start(order)
        except Unavailable as error:
            return await self._sink.end(lease, Cause.PROCESS_DIED, error.message)
        self._proxy_url = resume.proxy_url
        resumes, lane = bool(resume.jid), permit.lane.value
        self._log.info("Started a session process.", epoch=lease.epoch, resumes=resumes, lane=lane)
        try:
            # The lease may have been renewed while the process started.
            self._process.permit(self._safe_until)
            self._apply_missed_calls(self._process)
            return await self._consume(lease, self._process)
        except ZapError:
            raise
        except Exception as error:  # noqa: BLE001 - logged with its stack, and written as CLIENT_ERROR
            # Write an end as for any other process. Otherwise the state would stay stale, and the session would be
            # restarted for ever without a wait.
            self._log.exception("Unexpected error; ending the session process.")
            fault = type(error).__name__
        finally:
            # No process may outlive its runner, even if the runner is cancelled or failed.
            await asyncio.shield(self._process.kill())
            self._process = None
        return await self._sink.end(lease, Cause.CLIENT_ERROR, fault)

    def _apply_missed_calls(self, process: SessionProcess) -> None:
        """Stop or kill a process if that was asked while it started."""
        if self._lost:
            _spawn(process.kill())
        elif self._interrupted.is_set():
            self._stop_process()

    async def _consume(self, lease: Lease, process: SessionProcess) -> Directive:
        """Write what the process reports until it has ended. Return what follows."""
        directive = Directive.REPLACE
        async for batch in process.observations():
            for group in grouped(batch):
                if self._lost:
                    # Nothing may be written. Go on reading until the process has ended.
                    break
                try:
                    transition = await self._sink.write(lease, process, group)
                except (EpochRevoked, NotFound):
                    # Deactivated or deleted while the process ran. If activated again since, another process runs it.
                    self._stop_process()
                    continue
                except LeaseLost:
                    self.lose()
                    break
                if transition is not None:
                    directive = transition.directive
                if isinstance(group[0].observation, _AROUND_A_RECONNECT) and self._sink.proxy_url != self._proxy_url:
                    # The library would go on connecting through the old proxy.
                    self._log.info("The session's proxy has changed; replacing its process.")
                    self.restart()
        return directive

    # --- small parts --------------------------------------------------------------------------------------------

    def _usable(self) -> tuple[Lease, SessionProcess] | None:
        if self._lost or self._lease is None or self._process is None or time.monotonic() >= self._safe_until:
            return None
        return self._lease, self._process

    def _is_over(self) -> bool:
        return self._is_stopping or self._lost

    def _interrupt_waits(self) -> None:
        """End the waits for a start permit and for the back-off."""
        self._interrupted.set()
        self._start_slot.wake()

    def _stop_process(self) -> None:
        self._interrupt_waits()
        # Stop each process once: the reconciler repeats the call in every round.
        if self._process is not None and self._process is not self._stopping_process:
            self._stopping_process = self._process
            _spawn(self._process.stop(STOP_GRACE_S))

    async def _wait_until_due(self) -> None:
        # Another session can use the permit meanwhile.
        self._start_slot.give_back()
        # Wait by this machine's clock; next_attempt is by the database's.
        if not self._is_over():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sink.restart_wait_s):
                    await self._interrupted.wait()

    async def _give_up(self) -> None:
        """Delete discarded devices and release the lease, if the process is known to be dead."""
        self._sink.condition = None
        if self._lost or self._process is not None:
            # If the wait for the end of the process was cancelled, the process may live. The lease runs out by itself.
            return
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._delete_discarded()
                await self._release()
        except (Unavailable, TimeoutError) as error:
            # The next owner deletes the discarded devices.
            self._log.warning(
                "Lease release failed; the lease runs out by itself.", cause=str(error) or "the database is silent"
            )
        self._ports.publisher.notify_work()

    async def _release(self) -> None:
        leases, ttl = self._ports.leases, self._ports.times.ttl
        if self._target is not None:
            self.is_handed_over = await leases.hand_over(self.session_id, self._incarnation, self._target, ttl)
        if not self.is_handed_over:
            await leases.release(self._lease or Lease(self.session_id, 0, self._incarnation))

    async def _delete_discarded(self) -> None:
        if self._lease is None:
            # No epoch was begun, so no process has run.
            return
        try:
            await self._ports.owned.delete_discarded_devices(self._lease)
        except ZapError:
            raise
        except Exception:  # noqa: BLE001 - logged with its stack; the lease must still be released
            self._log.exception("Deleting the session's discarded devices failed; its next owner tries again.")


#: Keeps the tasks alive: asyncio holds only weak references to them.
_background: set[asyncio.Future[None]] = set()


def _spawn(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
