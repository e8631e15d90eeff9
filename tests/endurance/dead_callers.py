"""Callers that vanish without a word: what a node keeps for them must end all the same.

`python -m tests.endurance.dead_callers ADDRESS SESSION` is such a caller: it watches a pairing until it is stopped.
"""

import asyncio
import os
import signal
import sys
import time

import aiohttp
import grpc

from tests.endurance.stage import Stage
from zap.v1 import session_pb2, session_pb2_grpc

STREAMS = 5
"""Of each caller."""
NOTICED = 60.0
"""Seconds within which the node must have found out: it asks after 30, and waits 10 for the answer."""


async def run(stage: Stage, session_id: str) -> list[str]:
    """One caller is frozen: the kernel still answers for it, and it says no goodbye. Its streams must end."""
    await stage.node.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))
    await stage.node.first_code(session_id)
    caller = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.endurance.dead_callers", stage.node.address, session_id),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert caller.stdout is not None
        await caller.stdout.readline()
        opened = await _open_streams(stage.node.http_port)
        caller.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while (still := await _open_streams(stage.node.http_port)) and time.monotonic() - began < NOTICED:
            await asyncio.sleep(0.5)
        took = time.monotonic() - began
    finally:
        caller.kill()
        await caller.wait()
        await stage.node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=session_id))
    sys.stdout.write(f"a frozen caller's streams: {opened} open, {still} after {took:.0f} s\n")
    return [f"{still} streams of a caller that is gone are open"] * bool(still) + ["none was open"] * (not opened)


async def _open_streams(http_port: int) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{http_port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("zap_rpc_open_streams{")))


async def _watch(address: str, session_id: str) -> None:
    """Open streams, say so once each has brought its code, and read on."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        calls = [stub.StreamQR(session_pb2.StreamQRRequest(session_id=session_id)) for _ in range(STREAMS)]
        for call in calls:
            await call.read()
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await asyncio.gather(*(call.read() for call in calls))


if __name__ == "__main__":
    asyncio.run(_watch(*sys.argv[1:]))
