"""What goes wrong: the form of every table of faults, and the faults that any node can have."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy

T = TypeVar("T")
F = TypeVar("F", bound="Fault[Any]")

Outage = Callable[[T], AbstractAsyncContextManager[None]]
"""Of a target. Entering it makes it go wrong, leaving it undoes that."""


@dataclass(frozen=True)
class Fault(Generic[T]):
    """A row of a table."""

    name: str
    outage: Outage[T]
    lasts: float = 1.0
    """Share of the time that is drawn or asked for; 0: it is over as soon as it has happened."""


def named(faults: Iterable[F], parts: Sequence[str]) -> list[F]:
    """Return the faults that have one of these parts in their names."""
    return [fault for fault in faults if any(part.lower() in fault.name.lower() for part in parts)]


async def have(fault: Fault[T], target: T, seconds: float) -> tuple[float, float]:
    """Have it go wrong, and undo it; return when it began and when the undoing did, in Unix seconds."""
    began = time.time()
    async with fault.outage(target):
        await asyncio.sleep(seconds * fault.lasts)
        ended = time.time()
    return began, ended


async def start(node: ServiceProcess) -> None:
    """Start a node that has ended, and wait until it is ready."""
    await node.start()
    await node.wait_ready()


async def stop(node: ServiceProcess, timeout: float = 30.0) -> None:
    """Ask a node to stop. Raises AssertionError if it ends with an error."""
    if (code := await node.stop(timeout)) != 0:
        raise AssertionError(f"a node that was asked to stop ended with {code}")


@asynccontextmanager
async def killed(node: ServiceProcess) -> AsyncIterator[None]:
    """Kill the node's process alone; its session processes find out."""
    await node.kill_node()
    yield
    await start(node)


@asynccontextmanager
async def lost(node: ServiceProcess) -> AsyncIterator[None]:
    """Kill all its processes, as when the machine's power goes."""
    await node.kill_all()
    yield
    await start(node)


@asynccontextmanager
async def stopped(node: ServiceProcess) -> AsyncIterator[None]:
    """Stop it by SIGTERM: it hands its sessions over."""
    await stop(node)
    yield
    await start(node)


@asynccontextmanager
async def frozen(node: ServiceProcess) -> AsyncIterator[None]:
    """Freeze it. Its session processes get no run permits meanwhile: their watchdogs kill them if that lasts."""
    os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.pid, signal.SIGCONT)


@asynccontextmanager
async def disturbed(lines: Sequence[TcpProxy], state: Line) -> AsyncIterator[None]:
    """Cut these lines, or make them silent."""
    await asyncio.gather(*(line.set(state) for line in lines))
    try:
        yield
    finally:
        await asyncio.gather(*(line.set(Line.OPEN) for line in lines))


@asynccontextmanager
async def together(*outages: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    """Have several at the same moment, and undo them at the same moment."""
    await asyncio.gather(*(outage.__aenter__() for outage in outages))
    yield
    await asyncio.gather(*(outage.__aexit__(None, None, None) for outage in outages))
