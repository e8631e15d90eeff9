"""Starts a node: first the process that takes longest to be ready, and while that imports neonize, the node itself."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

from service.node.config import Settings
from service.wire.liveness import LivenessSocket
from service.workers.zygote import ZygoteClient


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """Run a node until `stopping` is set."""
    async with AsyncExitStack() as stack:
        # Closed last, when all processes are dead.
        liveness = LivenessSocket(uuid4())
        stack.callback(liveness.close)
        zygote = ZygoteClient(liveness=liveness.fileno)
        stack.push_async_callback(zygote.close)
        starting = asyncio.create_task(zygote.start(), name="zygote-start")
        stack.push_async_callback(_end, starting)
        # One step executes it. From then on two processes import at once.
        await asyncio.sleep(0)
        from service.node import wiring  # noqa: PLC0415 - half a second, which the zygote needs anyway

        await wiring.serve(settings, stopping, liveness, zygote)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))
