"""What is left of a node's processes when it, or its zygote, is killed at any moment: nothing."""

import psutil
import pytest

from tests.eventually import eventually
from tests.integration.script_nodes import marked, said, script_node

FORKED = """
async def main():
    zygote = ZygoteClient()
    children = [await zygote.fork() for _ in range(3)]
    await hold()
"""
FORKING = """
async def main():
    zygote = ZygoteClient()
    await zygote.start()
    forks = [asyncio.create_task(zygote.fork()) for _ in range(200)]
    await asyncio.wait(forks, return_when=asyncio.FIRST_COMPLETED)
    await hold()
"""
LOADING = """
async def main():
    pool, processes = await processes_that_load()
    await hold()
"""


@pytest.mark.parametrize("moment", [FORKED, FORKING, LOADING], ids=["before their start", "forking", "loading"])
async def test_nothing_is_left_of_a_node_that_is_killed(moment: str) -> None:
    async with script_node(moment) as (node, mark):
        assert await said(node) == ["there"]
        assert len(marked(mark)) > 2
        node.kill()
        await node.wait()
        await eventually(lambda: marked(mark) == [], "all to end")


ADOPTING = """
async def main():
    # As the first process of a container: what loses its parent becomes its child.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    own = await asyncio.create_subprocess_exec("sleep", "600", stdin=asyncio.subprocess.PIPE)
    pool, processes = await processes_that_load()
    zygote = pool._zygote.pid
    # Killed in the middle: it has forked what this node never gets to know of.
    forks = [asyncio.create_task(pool._zygote.fork()) for _ in range(100)]
    await asyncio.wait(forks, return_when=asyncio.FIRST_COMPLETED)
    os.kill(zygote, signal.SIGKILL)
    for fork in asyncio.as_completed(forks):
        (await fork).close()
    print("forked", flush=True)
    for process in processes:
        os.kill(process.pid, signal.SIGSEGV)
    for process in processes:
        async for batch in process.observations():
            print("died", batch[-1].observation.detail, flush=True)
    own.terminate()
    print("own", await own.wait(), flush=True)
    await pool.close()
    await hold()
"""


async def test_a_node_that_adopts_orphans_reaps_them_and_nobody_else_s() -> None:
    async with script_node(ADOPTING) as (node, mark):
        assert await said(node) == ["forked"]
        # Adopted, and so its own to await: it even learns how they ended.
        assert [" ".join(await said(node)) for _ in range(3)] == [
            "died killed by SIGSEGV (a fault in C); Fatal Python error: Segmentation fault"
        ] * 3
        assert await said(node) == ["own", "-15"]
        assert await said(node) == ["there"]
        await eventually(lambda: psutil.Process(node.pid).children(recursive=True) == [], "no child, dead or alive")
        assert len(marked(mark)) == 1


STUCK_ZYGOTE = """
def held():
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

async def main():
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    pool, processes = await processes_that_load()
    for process in processes:
        await process.kill()
        await process.process.wait_closed()
    await asyncio.sleep(0.5)  # until what is over is forgotten
    before = held()
    processes = [await start(pool, number) for number in range(3)]
    # It cannot reap any more, and cannot say how they ended.
    os.kill(pool._zygote.pid, signal.SIGSTOP)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        async for observed in process.observations():
            print("died", flush=True)
    while held() != before:
        await asyncio.sleep(0.1)
    await hold()
"""


async def test_what_a_frozen_zygote_did_not_reap_is_reaped_after_it() -> None:
    async with script_node(STUCK_ZYGOTE) as (node, _):
        assert [await said(node) for _ in range(3)] == [["died"]] * 3
        # As many descriptors and tasks as before they were started.
        assert await said(node) == ["there"]
        # The new zygote, and nothing else.
        (child,) = psutil.Process(node.pid).children(recursive=True)
        assert child.status() != psutil.STATUS_ZOMBIE
