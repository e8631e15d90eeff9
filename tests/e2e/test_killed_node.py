"""A node that is killed: its session processes are gone, and none of them connects, whatever they were doing."""

import asyncio
import os

from service.workers.pool import Pool, PoolSettings
from simulator.process import PRELOAD, SimulatorProcess
from tests.e2e.session_processes import pair
from tests.eventually import eventually
from tests.integration.script_nodes import marked, said, script_node

SESSIONS = 3
DELAYS = (0.0, 0.05, 0.2, 1.0)
"""Seconds from the last start to the end of the node: while they load, while they connect, once they are connected."""
NODE = """
async def main():
    pool = Pool(PoolSettings(os.environ["ZAP_TEST_DATABASE"], preload=os.environ["ZAP_TEST_PRELOAD"]))
    await pool.open()
    print("open", flush=True)
    for jid in os.environ["ZAP_TEST_JIDS"].split():
        # A permit of ten minutes: it is not what ends them.
        await pool.start(StartOrder(jid.partition(":")[0], 9, jid, "", time.monotonic() + 600))
    await asyncio.sleep(float(os.environ["ZAP_TEST_DELAY"]))
    print("there", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_node_that_is_killed_leaves_no_process_and_no_connection(
    simulator_process: SimulatorProcess, database_url: str
) -> None:
    control = simulator_process.control
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator_process.environment()})
    await pool.prepare_store()
    sessions = [await pair(pool, control, f"49170003000{number}", f"s{number}") for number in range(SESSIONS)]
    await asyncio.gather(*(session.process.stop(10) for session, _ in sessions))
    await pool.close()
    jids = [jid for _, jid in sessions]
    environment = {
        "ZAP_TEST_DATABASE": database_url,
        "ZAP_TEST_PRELOAD": PRELOAD,
        "ZAP_TEST_JIDS": " ".join(jids),
        **simulator_process.environment(),
    }
    for delay in DELAYS:
        async with script_node(NODE, environment | {"ZAP_TEST_DELAY": f"{delay}"}) as (node, mark):
            assert [await said(node), await said(node)] == [["open"], ["there"]]
            await node.wait()
            await eventually(lambda: marked(mark) == [], "all of its processes to end")
        for jid in jids:
            await control.wait_for_device(jid, lambda device: device.connections == 0)
        logins = [(await control.device(jid)).logins for jid in jids]
        await asyncio.sleep(0.3)
        assert [(await control.device(jid)).logins for jid in jids] == logins
