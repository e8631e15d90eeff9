"""Makes session processes (service.ports.ProcessPool)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.domain.disconnect_policy import Cause
from service.domain.errors import Unavailable
from service.domain.observations import Ended
from service.domain.start_scheduler import Lane
from service.ports import Metrics, StartOrder
from service.workers import dsn
from service.workers.process import Process
from service.workers.zygote import ZygoteClient
from zap.worker.v1 import frames_pb2

_PREPARE_SECONDS = 60.0
_OVERDUE_SECONDS = 2.0
_NANOSECONDS = 1_000_000_000


class StoreNotPrepared(Exception):
    """whatsmeow could not make or upgrade its tables; no session can be started."""


@dataclass(frozen=True)
class PoolSettings:
    """What every session process gets."""

    database_url: str = field(repr=False)
    """Of whatsmeow's tables, as asyncpg takes it."""
    proxy_url: str = field(default="", repr=False)
    """Of sessions that name none."""
    preload: str = ""
    """ "module:function" to call before the first connect (tests only)."""


class Pool:
    """The session processes of this node, and the zygote that they are forked from."""

    def __init__(
        self,
        settings: PoolSettings,
        environment: Mapping[str, str] | None = None,
        zygote: ZygoteClient | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`environment`: what the zygote is executed with, this process's own by default; secrets are left out.

        `zygote`: one that was made, and perhaps started, before.
        """
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._zygote = ZygoteClient(environment) if zygote is None else zygote
        self._processes: set[Process] = set()
        self._endings: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Have the zygote ready before the first session needs it. Raises Unavailable."""
        await self._zygote.start()

    async def close(self) -> None:
        """End what still runs, and the zygote. Returns when all of it is dead."""
        await asyncio.gather(*(process.kill() for process in self._processes))
        await asyncio.gather(*(process.over() for process in set(self._processes)))
        await self._zygote.close()

    @property
    def overdue(self) -> tuple[str, ...]:
        """Sessions whose process was killed and does not die: this node is not well, and keeps them."""
        return tuple(sorted(p.session_id for p in self._processes if p.overdue > _OVERDUE_SECONDS))

    async def start(self, order: StartOrder) -> Process:
        """A running process for this order. Raises Unavailable if none can be made now."""
        began = time.monotonic()
        try:
            process = await self._begin(self._start_of(order), order.lane)
        except Unavailable:
            self._metrics.start_came_to(order.lane.value, "NO_PROCESS")
            raise
        self._metrics.process_started(time.monotonic() - began)
        return process

    def _start_of(self, order: StartOrder) -> frames_pb2.Start:
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
        """Have whatsmeow make or upgrade its tables. Raises StoreNotPrepared.

        It does so without a lock of its own (fact 4): the caller must see to it that nobody else does at the time.
        """
        address = dsn.with_application_name(self._settings.database_url, "zap/prepare-store")
        process = await self._begin(
            frames_pb2.Start(
                session_id="prepare-store",
                database_url=address.url,
                database=address.database,
                prepare_store=True,
                permit=frames_pb2.Permit(deadline_ns=int((time.monotonic() + 2 * _PREPARE_SECONDS) * _NANOSECONDS)),
            )
        )
        ending = asyncio.create_task(_end_of(process))
        try:
            await asyncio.wait((ending,), timeout=_PREPARE_SECONDS)
            if not ending.done():
                # It then says what it has waited for.
                await process.stop(_OVERDUE_SECONDS)
            if (ended := await ending).cause is not Cause.STOPPED:
                raise StoreNotPrepared(f"whatsmeow's tables could not be made: {ended.detail}")
        finally:
            ending.cancel()

    async def _begin(self, start: frames_pb2.Start, lane: Lane | None = None) -> Process:
        child = await self._zygote.fork()
        process = Process(child, start.session_id, start.epoch, lane, self._metrics)
        self._processes.add(process)
        ending = asyncio.create_task(self._forget_when_over(process), name=f"forget-{start.session_id}")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        try:
            await process.begin(start)
        except BaseException:
            await asyncio.shield(process.kill())
            raise
        return process

    async def _forget_when_over(self, process: Process) -> None:
        await process.over()
        self._processes.discard(process)


async def _end_of(process: Process) -> Ended:
    async for batch in process.observations():
        if isinstance(ended := batch[-1].observation, Ended):
            return ended
    raise AssertionError("a process whose last observation is no end")
