"""Runs a command: handles signals, reports failures in one sentence and returns an exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog

from service.node.config import Settings, unknown_settings
from service.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

EX_UNAVAILABLE = os.EX_UNAVAILABLE
EX_SOFTWARE = os.EX_SOFTWARE
EX_CONFIG = os.EX_CONFIG

Work = Callable[[Settings, asyncio.Event], Awaitable[None]]
"""A command; runs until it is done or the event is set."""


def run(settings: Settings, work: Work) -> int:
    """Run a command until it is done or a signal stops it, and return the exit code."""
    configure_logging(level=settings.log_level.value, readable=not settings.is_production)
    for name in unknown_settings():
        log.warning("There is no such setting; is it misspelt?", setting=name)
    try:
        asyncio.run(_until_signal(settings, work))
    except _refusals() as error:
        sys.stderr.write(f"{error}\n")
        return EX_UNAVAILABLE
    except Exception:
        log.exception("The service failed with an internal error; it exits.")
        return EX_SOFTWARE
    return 0


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors that the operator can fix; they are reported without a stack trace."""
    # The zygote starts before any of these is imported (service/node/serve.py).
    from service.api.grpc.server import CannotListen  # noqa: PLC0415
    from service.api.http.pages import CannotServePages  # noqa: PLC0415
    from service.bus.redis import RedisUrlUnusable  # noqa: PLC0415
    from service.domain.errors import Unavailable  # noqa: PLC0415
    from service.node.connections import NoServer  # noqa: PLC0415
    from service.node.wiring import NotMigrated  # noqa: PLC0415
    from service.store.node_secret import NodeSecretDiffers  # noqa: PLC0415
    from service.store.startup_checks import DatabaseUnreachable  # noqa: PLC0415
    from service.workers.pool import StoreNotPrepared  # noqa: PLC0415

    return (
        *(DatabaseUnreachable, NodeSecretDiffers, NoServer, CannotListen, CannotServePages),
        *(RedisUrlUnusable, StoreNotPrepared, NotMigrated),
        # Only the worker pool raises it this early: the zygote cannot be executed or refuses the library.
        Unavailable,
    )


async def _until_signal(settings: Settings, work: Work) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work(settings, stopping))

    def stop() -> None:
        if stopping.is_set():
            # A second signal means: stop without waiting.
            working.cancel()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # nohup ignores SIGHUP for a process that is to outlive its terminal; it stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, _log_tasks)
    try:
        await working
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise


def _log_tasks() -> None:
    """Log where every task waits; SIGUSR1 triggers it to diagnose a node that hangs."""
    for task in asyncio.all_tasks():
        stack = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack()]
        log.warning("A task waits.", task=task.get_name(), coroutine=_name(task), where=stack)


def _name(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")
