"""Starts session processes and ends them with the node (service.ports.processes.ProcessPool)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.domain.disconnect_policy import Cause
from service.domain.errors import Unavailable
from service.domain.observations import Ended
from service.domain.start_scheduler import Lane
from service.ports.metrics import Metrics
from service.ports.processes import StartOrder
from service.workers import dsn
from service.workers.hosted_session import HostedSession
from service.workers.process import Process
from service.workers.zygote import ZygoteClient
from zap.worker.v1 import frames_pb2

_PREPARE_SECONDS = 60.0
_KILL_TIMEOUT_S = 2.0
_NANOSECONDS = 1_000_000_000


class StoreNotPrepared(Exception):
    """whatsmeow could not create or upgrade its tables, so no session can start."""


@dataclass(frozen=True)
class PoolSettings:
    """Settings of all session processes."""

    database_url: str = field(repr=False)
    """The URL of the database of whatsmeow's tables, in asyncpg's form."""
    proxy_url: str = field(default="", repr=False)
    """The proxy of sessions that name none."""
    preload: str = ""
    """ "module:function" to call before the first connect (tests only)."""


class Pool:
    """Owns the session processes of this node and the client of the zygote."""

    def __init__(
        self,
        settings: PoolSettings,
        environment: Mapping[str, str] | None = None,
        zygote: ZygoteClient | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Use `zygote`, which may be started already, or a new one.

        `environment` is the environment of a new zygote, without its secrets; by default that of this process.
        """
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._zygote = ZygoteClient(environment) if zygote is None else zygote
        self._processes: set[Process] = set()
        self._removals: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start the zygote before the first session needs it. Raise Unavailable."""
        await self._zygote.start()

    async def close(self) -> None:
        """Kill all session processes and the zygote, and wait until they are dead."""
        await asyncio.gather(*(process.kill() for process in self._processes))
        await asyncio.gather(*(process.wait_closed() for process in set(self._processes)))
        await self._zygote.close()

    @property
    def overdue(self) -> tuple[str, ...]:
        """The sessions whose process was killed and does not die; this node keeps their leases."""
        return tuple(sorted(one for p in self._processes if p.overdue > _KILL_TIMEOUT_S for one in p.session_ids))

    async def start(self, order: StartOrder) -> HostedSession:
        """Start a process for this order. Raise Unavailable if none can be forked now."""
        began = time.monotonic()
        try:
            session = await self._begin(self._start_command(order), order.lane)
        except Unavailable:
            self._metrics.start_outcome(order.lane.value, "NO_PROCESS")
            raise
        self._metrics.process_started(time.monotonic() - began)
        return session

    def _start_command(self, order: StartOrder) -> frames_pb2.Start:
        address = dsn.for_session(self._settings.database_url, order.session_id, order.epoch)
        return frames_pb2.Start(
            session_id=order.session_id,
            epoch=order.epoch,
            database_url=address.url,
            database=address.database,
            jid=order.jid,
            proxy_url=order.proxy_url or self._settings.proxy_url,
            preload=self._settings.preload,
            permit=frames_pb2.Permit(deadline_ns=int(order.permitted_until * _NANOSECONDS)),
        )

    async def prepare_store(self) -> None:
        """Have whatsmeow create or upgrade its tables. Raise StoreNotPrepared.

        whatsmeow takes no lock for that, so the caller must hold one.
        """
        address = dsn.with_application_name(self._settings.database_url, "zap/prepare-store")
        session = await self._begin(
            frames_pb2.Start(
                session_id="prepare-store",
                database_url=address.url,
                database=address.database,
                prepare_store=True,
                permit=frames_pb2.Permit(deadline_ns=int((time.monotonic() + 2 * _PREPARE_SECONDS) * _NANOSECONDS)),
            )
        )
        ending = asyncio.create_task(_wait_ended(session))
        try:
            await asyncio.wait((ending,), timeout=_PREPARE_SECONDS)
            if not ending.done():
                # The end of a stopped process reports what it waited for.
                await session.stop(_KILL_TIMEOUT_S)
            if (ended := await ending).cause is not Cause.STOPPED:
                raise StoreNotPrepared(f"whatsmeow's tables could not be made: {ended.detail}")
        finally:
            ending.cancel()

    async def _begin(self, start: frames_pb2.Start, lane: Lane | None = None) -> HostedSession:
        """Start a process of its own for a session: the one place that says how many sessions a process has."""
        child = await self._zygote.fork()
        process = Process(child, {"session_id": start.session_id, "epoch": start.epoch})
        session = HostedSession(process, start.session_id, start.epoch, lane, self._metrics)
        self._processes.add(process)
        removal = asyncio.create_task(self._remove_when_closed(process), name=f"forget-{start.session_id}")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        try:
            await process.begin(session, start)
        except BaseException:
            await asyncio.shield(process.kill())
            raise
        return session

    async def _remove_when_closed(self, process: Process) -> None:
        await process.wait_closed()
        self._processes.discard(process)


async def _wait_ended(session: HostedSession) -> Ended:
    async for batch in session.observations():
        if isinstance(ended := batch[-1].observation, Ended):
            return ended
    raise AssertionError("the last observation of a process is no Ended")
