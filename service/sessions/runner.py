"""One owned session: a process after the other, from the claim of its lease to its release.

    claimed ─▶ begin epoch ─▶ prepare ─▶ process ─▶ observations ─▶ ended ─▶ back-off ─▶ turn ─▶ begin epoch …
                                 │                                    │
                                 └── not wanted ──▶ release ◀─────────┘ (released, or the node stops)

Every process is started on a turn of the node's gate (start_gate.py): the first on the one that the claim took.

Whatever ends a process (a caller, a lost lease, its own death) ends it through its last observation, so there is one
way out. The lease is released only when the process is dead for certain, and never if it was lost.
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
from service.ports import (
    EventLog,
    LeaseStore,
    OwnedSessionStore,
    ProcessPool,
    Publisher,
    Resume,
    SessionProcess,
    StartOrder,
    StartPermit,
)
from service.sessions.observation_sink import ObservationSink, grouped
from service.sessions.start_limiter import StartLimiter
from service.sessions.start_slot import StartSlot

log = structlog.get_logger(__name__)

STOP_GRACE_S = 7.0
"""Seconds a process has to disconnect and finish the event in hand before it is killed: it takes at most 5 itself."""

_BY_A_CONNECT = (seen.Connected, seen.Disconnected, seen.KeepAliveTimeout)
"""What comes before a connect of the library's own, or behind it."""


@dataclass(frozen=True)
class RunnerPorts:
    """What a runner works with; the same for all of a node."""

    owned: OwnedSessionStore
    leases: LeaseStore
    events: EventLog
    pool: ProcessPool
    publisher: Publisher
    times: LeaseTimes
    gate: StartLimiter


class Runner:
    """Runs one session that this node's incarnation has claimed."""

    def __init__(self, session_id: str, incarnation: UUID, ports: RunnerPorts, turn: StartPermit | None = None) -> None:
        """`turn`: the one that was taken for the claim."""
        self.session_id = session_id
        self.is_handed_over = False
        """Its lease is the heir's now."""
        self._incarnation = incarnation
        self._ports = ports
        self._lease: Lease | None = None
        self._process: SessionProcess | None = None
        self._proxy_url = ""
        self._safe_until = 0.0
        self._leaving = False
        self._target: Node | None = None
        self._lost = False
        self._next_start = StartSlot(ports.gate, turn)
        self._stopping: SessionProcess | None = None
        self._look_again = asyncio.Event()
        self._sink = ObservationSink(
            session_id, ports.owned, ports.events, ports.publisher, ports.times.ttl, lambda: self._lost
        )
        self.early_receipts = self._sink.early_receipts
        self._log = log.bind(session_id=session_id)

    # --- what others see and do ---------------------------------------------------------------------------------

    @property
    def connection(self) -> tuple[Lease, SessionProcess] | None:
        """The lease and the process to call, while the session is connected and this node may act for it."""
        return self._current() if self._sink.state is State.CONNECTED else None

    @property
    def pairing(self) -> tuple[Lease, SessionProcess] | None:
        """The lease and the process to ask for a pairing code, while a pairing is in progress."""
        return self._current() if self._sink.state is State.PAIRING else None

    @property
    def is_running(self) -> bool:
        """There is a process of it."""
        return self._process is not None

    @property
    def is_waiting(self) -> bool:
        """It waits for its turn to be started."""
        return self._next_start.is_waiting

    @property
    def safe_until(self) -> float:
        """Until when (time.monotonic()) this node may act for the session."""
        return self._safe_until

    def permit(self, safe_until: float) -> None:
        """The lease was renewed."""
        self._safe_until = max(self._safe_until, safe_until)
        if self._process is not None:
            self._process.permit(self._safe_until)

    def lose(self) -> None:
        """The lease is lost: kill what runs, write nothing more, release nothing."""
        if self._lost:
            return
        self._log.warning("The lease is lost; the session's process is killed.")
        self._lost = True
        self._disturb()
        if self._process is not None:
            _spawn(self._process.kill())

    def hand_over_or_stop(self, target: Node | None = None) -> None:
        """The node stops: stop the process gently and release the lease, or make it the heir's."""
        self._target = target
        self._leaving = True
        self._stop_process()

    def restart(self) -> None:
        """Replace the process, now."""
        self._sink.restarts.reset()
        self._stop_process()

    def unwanted(self) -> None:
        """Nobody wants it connected any more (or it was deleted)."""
        self._stop_process()

    async def run(self) -> None:
        """Until the session is given up; the lease is released by then, or lost."""
        try:
            while not self._over():
                if await self._one_process() is Directive.RELEASE:
                    break
        except LeaseLost as error:
            self._lost = True
            self._log.warning("The session has another owner.", cause=error.message)
        finally:
            self._next_start.give_back()
            await asyncio.shield(self._give_up())

    # --- one process --------------------------------------------------------------------------------------------

    async def _one_process(self) -> Directive:
        # Perhaps it is not wanted any more: what was asked meanwhile is looked at without waiting for a turn.
        await self._next_start.wait(self._sink.lane, self._sink.active_at, skip_wait=self._look_again.is_set())
        if self._over():
            return Directive.RELEASE
        # Before the wishes are read: what changes from here on is noticed.
        self._look_again.clear()
        self._lease = lease = await self._sink.until_written(self._begin_epoch)
        try:
            resume = await self._sink.until_written(lambda: self._ports.owned.prepare(lease))
            if not resume.wanted or self._over():
                return Directive.RELEASE
            if not self._next_start.has_turn:
                # It is wanted all the same.
                return Directive.REPLACE
            directive = await self._live(lease, resume)
        except (EpochRevoked, NotFound):
            # Unwanted or deleted since this epoch began, and perhaps wanted again: the next one finds out.
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

    async def _live(self, lease: Lease, resume: Resume) -> Directive:
        await self._sink.apply(lease, ProcessStarted())
        if resume.missing:
            return await self._sink.end(lease, Cause.DEVICE_MISSING)
        while (turn := self._next_start.use()) is None:
            skip_wait = self._look_again.is_set()
            await self._next_start.wait(self._sink.lane, self._sink.active_at, skip_wait=skip_wait)
            if not self._next_start.has_turn:
                return Directive.REPLACE
        order = StartOrder(
            self.session_id,
            lease.epoch,
            resume.jid,
            resume.proxy_url,
            self._safe_until,
            lane=turn.lane,
        )
        try:
            self._process = await self._ports.pool.start(order)
        except Unavailable as error:
            return await self._sink.end(lease, Cause.PROCESS_DIED, error.message)
        self._proxy_url = resume.proxy_url
        resumes, lane = bool(resume.jid), turn.lane.value
        self._log.info("Started a session process.", epoch=lease.epoch, resumes=resumes, lane=lane)
        try:
            # Renewed while it was being made.
            self._process.permit(self._safe_until)
            self._catch_up(self._process)
            return await self._attend(lease, self._process)
        except ZapError:
            raise
        except Exception as error:  # noqa: BLE001 - logged with its stack, and written down as what it is
            # A fault of ours, or of the database's. It has to be an end like the others: the state would go on saying
            # what was, and the session would be started again at once, for ever.
            self._log.exception("A session's process is given up for a fault that nobody expected.")
            fault = type(error).__name__
        finally:
            # Cancelled or failed: nothing of ours may outlive its runner.
            await asyncio.shield(self._process.kill())
            self._process = None
        return await self._sink.end(lease, Cause.CLIENT_ERROR, fault)

    def _catch_up(self, process: SessionProcess) -> None:
        """What was asked while the process was being made must not be lost on it."""
        if self._lost:
            _spawn(process.kill())
        elif self._look_again.is_set():
            self._stop_process()

    async def _attend(self, lease: Lease, process: SessionProcess) -> Directive:
        directive = Directive.REPLACE
        async for batch in process.observations():
            for group in grouped(batch):
                if self._lost:
                    # Nothing may be written.
                    break
                try:
                    transition = await self._sink.write(lease, process, group)
                except (EpochRevoked, NotFound):
                    # Unwanted or deleted while its process ran, and perhaps wanted again: that is for another process.
                    self._stop_process()
                    continue
                except LeaseLost:
                    self.lose()
                    break
                if transition is not None:
                    directive = transition.directive
                if isinstance(group[0].observation, _BY_A_CONNECT) and self._sink.proxy_url != self._proxy_url:
                    # The library would go on connecting through the old one.
                    self._log.info("The session has another proxy by now; its process is replaced.")
                    self.restart()
        return directive

    # --- small parts --------------------------------------------------------------------------------------------

    def _current(self) -> tuple[Lease, SessionProcess] | None:
        if self._lost or self._lease is None or self._process is None or time.monotonic() >= self._safe_until:
            return None
        return self._lease, self._process

    def _over(self) -> bool:
        return self._leaving or self._lost

    def _disturb(self) -> None:
        """Whatever it waits for, it looks again now."""
        self._look_again.set()
        self._next_start.disturb()

    def _stop_process(self) -> None:
        self._disturb()
        # Once: whoever wants it stopped says so again at every look.
        if self._process is not None and self._process is not self._stopping:
            self._stopping = self._process
            _spawn(self._process.stop(STOP_GRACE_S))

    async def _wait_until_due(self) -> None:
        # Somebody else can start meanwhile.
        self._next_start.give_back()
        # On this machine's clock: next_attempt is on the database's.
        if not self._over():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sink.restart_wait_s):
                    await self._look_again.wait()

    async def _give_up(self) -> None:
        """The process is dead: delete what it left, if that is to go, and release the lease."""
        self._sink.condition = None
        if self._lost or self._process is not None:
            # Lost; or whoever waited for the end of its process was cut short, and it may live: the lease runs out.
            return
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._sweep()
                await self._let_go()
        except (Unavailable, TimeoutError) as error:
            # The lease runs out by itself, and whoever claims it next sweeps.
            self._log.warning("The lease could not be released.", cause=str(error) or "the database is silent")
        self._ports.publisher.reconcile()

    async def _let_go(self) -> None:
        leases, ttl = self._ports.leases, self._ports.times.ttl
        if self._target is not None:
            self.is_handed_over = await leases.hand_over(self.session_id, self._incarnation, self._target, ttl)
        if not self.is_handed_over:
            await leases.release(self._lease or Lease(self.session_id, 0, self._incarnation))

    async def _sweep(self) -> None:
        if self._lease is None:
            # Claimed, and no more.
            return
        try:
            await self._ports.owned.sweep(self._lease)
        except ZapError:
            raise
        except Exception:  # noqa: BLE001 - logged with its stack; the lease must be released all the same
            self._log.exception("What the session left could not be deleted; its next owner tries again.")


#: asyncio keeps only weak references to tasks.
_background: set[asyncio.Future[None]] = set()


def _spawn(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
