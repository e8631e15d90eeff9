"""Keeps a zygote running for the node, and forks session processes from it.

The node itself never forks, because it has threads and gRPC. It executes the zygote, sends it one end of a new socket
for each session, and receives a pidfd. A pidfd identifies a process even after its process id has been reused.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence

from service.domain.errors import Unavailable
from service.workers.zygote_process import Child, ZygoteDied, ZygoteProcess

_log = logging.getLogger(__name__)

_READY_TIMEOUT_S = 20.0
_FORK_ATTEMPTS = 3

#: Secrets, which go over the sockets, because other tools can read a process's environment. All other variables are
#: passed on, since a preload may need them.
_SECRET_VARIABLES = frozenset(
    {
        "DATABASE_URL",
        "REDIS_URL",
        "ZAP_WHATSAPP_DATABASE_URL",
        "ZAP_WHATSAPP_PROXY_URL",
        "ZAP_AUTH_TOKEN",
        "ZAP_NODE_SECRET",
    }
)

COMMAND = (sys.executable, "-m", "service.worker")


def environment_for(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the zygote. Go sees no later changes of it."""
    # lib/pq reads PG… too, and some would lead it past the relay. Its URL contains their values (dsn.py).
    kept = {name: value for name, value in base.items() if name not in _SECRET_VARIABLES and not name.startswith("PG")}
    # SPHINX imports neonize without its library. MALLOC_ARENA_MAX saves the memory of a heap for each thread.
    return {"MALLOC_ARENA_MAX": "2"} | kept | {"SPHINX": "1", "NEONIZE_BOT_TAG": "off"}


class ZygoteClient:
    """Forks session processes from the current zygote, and replaces a zygote that dies. For one event loop."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        liveness: int | None = None,
    ) -> None:
        """`liveness`: descriptor of the node's liveness socket (wire/liveness.py)."""
        self._environment = environment_for(os.environ if environment is None else environment)
        self._command = command
        self._liveness = liveness
        self._process: ZygoteProcess | None = None
        self._starting = asyncio.Lock()
        self._replacing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The process id of the current zygote; None if none is usable."""
        return self._process.pid if self._process and self._process.is_usable else None

    async def start(self) -> None:
        """Start a zygote, unless one is running. Raise Unavailable if it does not get ready."""
        await self._ensure_running()

    async def close(self) -> None:
        """Terminate the zygote. Its children go on until their sockets are closed."""
        self._is_closed = True
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait([self._replacing])
        async with self._starting:
            if self._process is not None:
                self._process.is_stopping = True
                await _terminate_and_wait(self._process)

    async def fork(self) -> Child:
        """Fork a process that waits for its first command. Raise Unavailable.

        If the zygote dies meanwhile, request the fork from another one. A child that the first one may have forked
        finds its socket closed, and exits.
        """
        for _ in range(_FORK_ATTEMPTS):
            process = await self._ensure_running()
            try:
                return await process.fork()
            except ZygoteDied as error:
                _log.warning("the zygote died during a fork: %s", error)
        raise Unavailable("session processes cannot be made now: the zygote keeps dying", reason="POOL_UNAVAILABLE")

    async def _ensure_running(self) -> ZygoteProcess:
        async with self._starting:
            if self._is_closed:
                raise Unavailable("the pool is closed", reason="POOL_UNAVAILABLE")
            if self._process is None or not self._process.is_usable:
                self._process = await self._start()
                self._replacing = asyncio.create_task(self._replace_when_dead(self._process), name="zygote-keeper")
            return self._process

    async def _start(self) -> ZygoteProcess:
        began = time.monotonic()
        process = ZygoteProcess(self._command, self._environment, self._liveness)
        try:
            await process.ready(_READY_TIMEOUT_S)
        except (TimeoutError, ZygoteDied) as error:
            await _terminate_and_wait(process)
            raise Unavailable(f"the zygote did not start: {error}", reason="POOL_UNAVAILABLE") from error
        except BaseException:
            process.terminate()
            raise
        _log.info("zygote %d is ready after %.2f s", process.pid, time.monotonic() - began)
        return process

    async def _replace_when_dead(self, process: ZygoteProcess) -> None:
        """Start a new zygote once this one is dead; if that fails, the next fork raises the reason."""
        await process.wait_dead()
        with contextlib.suppress(Unavailable):
            await self._ensure_running()


async def _terminate_and_wait(process: ZygoteProcess) -> None:
    process.terminate()
    await process.wait_dead()
