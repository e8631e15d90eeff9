"""How long all sessions are away when the only node is killed and started again: `python -m benchmarks.restart`.

On the real client, a simulated WhatsApp, embedded Postgres and Valkey, without pacing. The machine should do nothing
else: what is said of its load comes with the figures.
"""

import argparse
import asyncio
import os
import statistics
import time

from benchmarks.stage import Deployment, deployment
from simulator.views import DeviceView

PATIENCE_S = 60.0
POLL_S = 0.5
"""The times come from the simulator; looking costs the processor that the sessions need."""


async def devices_of(there: Deployment) -> list[DeviceView]:
    """Return what WhatsApp has seen of each session."""
    return [device for device in await there.simulator.devices() if device.jid in there.jids.values()]


async def restart(there: Deployment) -> list[float]:
    """Kill the node, start it again, and return when each session logged in, in seconds from the kill."""
    logins = {device.jid: device.logins for device in await devices_of(there)}
    killed_at = time.time()
    await there.node.kill_node()
    await there.node.start()
    await there.node.wait_ready()
    serving = time.time() - killed_at
    while any(device.logins == logins[device.jid] for device in await devices_of(there)):
        if time.time() > killed_at + PATIENCE_S:
            raise TimeoutError(f"not all sessions came back:\n{there.node.log()}")
        await asyncio.sleep(POLL_S)
    devices = await devices_of(there)
    if any(device.overlaps or device.replaced for device in devices):
        raise RuntimeError("a session was connected twice")
    return [serving, *sorted(device.intervals[-1].connected_at - killed_at for device in devices)]


async def measure(sessions: int, runs: int) -> None:
    """Print a line for each run."""
    async with deployment(sessions, environment={"ZAP_CONNECTS_PER_SECOND": "1000"}) as there:
        print(f"{'serving':>8} {'first':>8} {'half':>8} {'all':>8}   load  (seconds from the kill)")  # noqa: T201
        for _ in range(runs):
            serving, *back = await restart(there)
            figures = [serving, back[0], statistics.median(back), back[-1]]
            print(*(f"{figure:8.2f}" for figure in figures), f" {os.getloadavg()[0]:5.1f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.sessions, arguments.runs))
