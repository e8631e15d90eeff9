"""A session whose process dies time and again: its waits grow, it says why, others go on, and it recovers by itself."""

import asyncio
import itertools
import os
import re
import signal
import time
from datetime import datetime
from pathlib import Path

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e import faults
from tests.e2e.downtime import process_of, undisturbed
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess

CRASHES = 4
"""… after which the waits were 0.1, 1, 2 and 4 s at most, and half of that at least but for the first."""


def starts(node: ServiceProcess, session_id: str) -> list[datetime]:
    """When each of its processes was started, by the node's log."""
    line = re.compile(rf"^(\S+) .*Started a session process\. .*session_id={session_id}$", re.MULTILINE)
    return [datetime.fromisoformat(match[1]) for match in line.finditer(node.log())]


async def test_a_process_that_keeps_dying_is_started_less_and_less_often(
    node_environment: dict[str, str], simulator: SimulatorControl, tmp_path: Path
) -> None:
    environment = node_environment | {"ZAP_WORKER_PRELOAD": faults.PRELOAD, faults.CRASHES: f"{tmp_path}"}
    async with ServiceProcess(environment) as node:
        jids = {
            name: await pair(node, simulator, name, await new_phone(simulator, name))
            for name in ("anna", "ben", "cleo")
        }
        before = await undisturbed(node, simulator, "cleo", jids["cleo"])
        (tmp_path / "anna").write_text("login")
        (tmp_path / "ben").write_text("load")
        began = {name: len(starts(node, name)) for name in jids}
        for name in ("anna", "ben"):
            os.kill(process_of(node, name).pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while min(len(starts(node, name)) - began[name] for name in ("anna", "ben")) < CRASHES:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        for name in ("anna", "ben"):
            since = starts(node, name)[began[name] :]
            gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(since)]
            assert all(gap >= least for gap, least in zip(gaps, (0.5, 1.0, 2.0), strict=False)), gaps
        # Waiting for its next attempt, it says why and when.
        session = await node.wait_state("ben", State.STATE_RECONNECTING)
        assert session.reason.code == "PROCESS_DIED"
        assert session.evidence.attempts >= CRASHES
        assert await undisturbed(node, simulator, "cleo", jids["cleo"]) == before
        for name in ("anna", "ben"):
            (tmp_path / name).unlink()
        for name in ("anna", "ben"):
            await node.wait_state(name, State.STATE_CONNECTED, timeout=30, after_epoch=CRASHES)
            device = await simulator.device(jids[name])
            assert (device.overlaps, device.replaced) == (0, 0)
