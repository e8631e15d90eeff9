"""Starts a node. The zygote starts first, and the node's modules are imported while the zygote imports neonize."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

from service.node.config import Settings
from service.wire.liveness import LivenessSocket
from service.workers.zygote import ZygoteClient


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """Run a node until `stopping` is set."""
    async with AsyncExitStack() as stack:
        # The stack closes it last: it must stay held until all session processes have ended.
        liveness = LivenessSocket(uuid4())
        stack.callback(liveness.close)
        zygote = ZygoteClient(liveness=liveness.fileno)
        stack.push_async_callback(zygote.close)
        starting = asyncio.create_task(zygote.start(), name="zygote-start")
        stack.push_async_callback(_end, starting)
        # One step of the loop executes the zygote; from then on both processes import in parallel.
        await asyncio.sleep(0)
        from service.node import wiring  # noqa: PLC0415 - takes 0.5 s, less than the zygote's start

        await wiring.serve(settings, stopping, liveness, zygote)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))
