"""The node's zygote: started when it is needed, asked to fork, replaced when it dies.

The node itself never forks (it has threads and gRPC). It executes the zygote, hands it one end of a new socket for each
session, and gets a pidfd back: the one thing by which a process can be killed and its death awaited without ever
meaning another process that has got the same number.
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

_READY_SECONDS = 20.0
_ATTEMPTS = 3

#: What must not be in the environment of processes that other tools can look at: secrets travel over the sockets. All
#: else goes on: a preload may have settings of its own.
_SECRET = frozenset(
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
    """The environment that the zygote is executed with. Go sees no later one (fact 24)."""
    # PG…: lib/pq reads them too, and some would lead it past the relay. What they say is in its address (dsn.py).
    kept = {name: value for name, value in base.items() if name not in _SECRET and not name.startswith("PG")}
    # SPHINX: import neonize without its library. MALLOC_ARENA_MAX: a heap for each thread costs more than it gives.
    return {"MALLOC_ARENA_MAX": "2"} | kept | {"SPHINX": "1", "NEONIZE_BOT_TAG": "off"}


class ZygoteClient:
    """Forks session processes, whichever process does it at the time. For one event loop."""

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
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Of the process that forks now, if there is one."""
        return self._process.pid if self._process and self._process.is_usable else None

    async def start(self) -> None:
        """Have it running. Raises Unavailable if it does not get ready."""
        await self._usable()

    async def close(self) -> None:
        """End it. Its children go on until their sockets are closed."""
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        async with self._starting:
            if self._process is not None:
                self._process.is_asked_to_end = True
                await _bury(self._process)

    async def fork(self) -> Child:
        """A new process that waits for its first command. Raises Unavailable.

        If the zygote dies in the middle, another one is asked: what the first one may have forked finds its socket
        closed, and ends.
        """
        for _ in range(_ATTEMPTS):
            process = await self._usable()
            try:
                return await process.fork()
            except ZygoteDied as error:
                _log.warning("the zygote died while it was asked to fork: %s", error)
        raise Unavailable("session processes cannot be made now: the zygote keeps dying", reason="POOL_UNAVAILABLE")

    async def _usable(self) -> ZygoteProcess:
        async with self._starting:
            if self._is_closed:
                raise Unavailable("the pool is closed", reason="POOL_UNAVAILABLE")
            if self._process is None or not self._process.is_usable:
                self._process = await self._start()
                self._keeper = asyncio.create_task(self._replace_when_gone(self._process), name="zygote-keeper")
            return self._process

    async def _start(self) -> ZygoteProcess:
        began = time.monotonic()
        process = ZygoteProcess(self._command, self._environment, self._liveness)
        try:
            await process.ready(_READY_SECONDS)
        except (TimeoutError, ZygoteDied) as error:
            await _bury(process)
            raise Unavailable(f"the zygote did not start: {error}", reason="POOL_UNAVAILABLE") from error
        except BaseException:
            process.terminate()
            raise
        _log.info("zygote %d is ready after %.2f s", process.pid, time.monotonic() - began)
        return process

    async def _replace_when_gone(self, process: ZygoteProcess) -> None:
        """Have a new one before it is needed; if there is none to be had, the next fork says why."""
        await process.wait_dead()
        with contextlib.suppress(Unavailable):
            await self._usable()


async def _bury(process: ZygoteProcess) -> None:
    process.terminate()
    await process.wait_dead()
