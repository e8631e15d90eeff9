"""How long all sessions are away when the only node is killed and started again: `python -m benchmarks.restart`.

On the real client, a simulated WhatsApp, embedded Postgres and Valkey, without pacing. The machine should do nothing
else: what is said of its load comes with the figures.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.e2e.people import new_phone, pair
from tests.service_process import ServiceProcess
from tests.simulator.control import SimulatorControl
from tests.simulator.process import PRELOAD, SimulatorProcess
from tests.simulator.views import DeviceView

PAIRED_AT_ONCE = 4
PATIENCE_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class Stage:
    """A node whose sessions are all connected."""

    node: ServiceProcess
    simulator: SimulatorControl
    jids: Sequence[str]

    async def devices(self) -> list[DeviceView]:
        """What WhatsApp has seen of each session."""
        return [device for device in await self.simulator.devices() if device.jid in self.jids]

    async def restart(self) -> list[float]:
        """Kill the node, start it again, and return when each session logged in, in seconds from the kill."""
        logins = {device.jid: device.logins for device in await self.devices()}
        killed_at = time.time()
        await self.node.kill_node()
        await self.node.start()
        await self.node.wait_ready()
        serving = time.time() - killed_at
        while any(device.logins == logins[device.jid] for device in await self.devices()):
            if time.time() > killed_at + PATIENCE_S:
                raise TimeoutError(f"not all sessions came back:\n{self.node.log()}")
            await asyncio.sleep(POLL_S)
        devices = await self.devices()
        if any(device.overlaps or device.replaced for device in devices):
            raise RuntimeError("a session was connected twice")
        return [serving, *sorted(device.intervals[-1].connected_at - killed_at for device in devices)]


@asynccontextmanager
async def stage(sessions: int) -> AsyncIterator[Stage]:
    """A node with so many paired sessions."""
    folder = Path(tempfile.mkdtemp(prefix="zap-benchmark-"))
    # Root's Postgres runs as nobody, who must be able to pass.
    os.chmod(folder, 0o711)  # noqa: PTH101, S103
    try:
        async with (
            EmbeddedPostgres(folder, durable=False, die_with_starter=True) as postgres,
            EmbeddedValkey(folder, die_with_starter=True) as valkey,
            SimulatorProcess() as simulator,
        ):
            environment = {
                "DATABASE_URL": postgres.url,
                "REDIS_URL": valkey.url,
                "ZAP_WORKER_PRELOAD": PRELOAD,
                "ZAP_CONNECTS_PER_SECOND": "1000",
                **simulator.environment(),
            }
            async with ServiceProcess(environment) as node:
                yield Stage(node, simulator.control, await _pair_all(node, simulator.control, sessions))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _pair_all(node: ServiceProcess, simulator: SimulatorControl, sessions: int) -> list[str]:
    places = asyncio.Semaphore(PAIRED_AT_ONCE)

    async def pair_one(name: str) -> str:
        async with places:
            return await pair(node, simulator, name, await new_phone(simulator, name))

    return await asyncio.gather(*(pair_one(f"shop-{number:03}") for number in range(sessions)))


async def measure(sessions: int, runs: int) -> None:
    """Print a line for each run."""
    async with stage(sessions) as here:
        print(f"{'serving':>8} {'first':>8} {'half':>8} {'all':>8}   load  (seconds from the kill)")  # noqa: T201
        for _ in range(runs):
            serving, *back = await here.restart()
            figures = [serving, back[0], statistics.median(back), back[-1]]
            print(*(f"{figure:8.2f}" for figure in figures), f" {os.getloadavg()[0]:5.1f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.sessions, arguments.runs))
