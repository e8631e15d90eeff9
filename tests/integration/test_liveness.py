"""Whether a process of a node is left, asked of the kernel while real ones are killed, frozen and replaced."""

import os
import shutil
import signal
import subprocess
import sys
import uuid

import psutil
import pytest

from service.wire.liveness import is_held, scope
from tests.eventually import eventually
from tests.integration.script_nodes import ROOT, marked, said, script_node

INCARNATION = "ZAP_TEST_INCARNATION"
PROLOGUE = """
import uuid
from service.wire.liveness import LivenessSocket
liveness = LivenessSocket(uuid.UUID(os.environ["ZAP_TEST_INCARNATION"]))

def pool_of_this_node():
    settings = PoolSettings("postgresql://zap@127.0.0.1:9/none", preload="tests.integration.preloads:take_long")
    return Pool(settings, zygote=ZygoteClient(liveness=liveness.fileno))
"""
STARTED = """
async def main():
    pool = pool_of_this_node()
    print(*[(await start(pool, number)).pid for number in range(3)], flush=True)
    await hold()
"""
FORKED = """
async def main():
    zygote = ZygoteClient(liveness=liveness.fileno)
    children = [await zygote.fork() for _ in range(3)]
    print(*[child.pid for child in children], flush=True)
    await hold()
"""
REPLACED = """
async def main():
    pool = pool_of_this_node()
    await pool.open()
    first = pool._zygote.pid
    os.kill(first, signal.SIGKILL)
    while pool._zygote.pid in (None, first):
        await asyncio.sleep(0.01)
    print((await start(pool, 1)).pid, flush=True)
    await hold()
"""
PROGRAM = """
async def main():
    pool = pool_of_this_node()
    await pool.open()
    # As an embedded server would: it outlives the node.
    program = await asyncio.create_subprocess_exec("sleep", "600")
    print(program.pid, flush=True)
    await hold()
"""


def node_of(incarnation: uuid.UUID, script: str) -> tuple[str, dict[str, str]]:
    return PROLOGUE + script, {INCARNATION: str(incarnation)}


@pytest.mark.parametrize("script", [STARTED, FORKED], ids=["started", "before their start"])
async def test_the_name_is_free_once_the_last_process_is_dead_and_not_before(script: str) -> None:
    incarnation = uuid.uuid4()
    assert not is_held(incarnation)
    async with script_node(*node_of(incarnation, script)) as (node, mark):
        assert len(await said(node)) == 3
        assert is_held(incarnation)
        node.kill()
        await eventually(lambda: not is_held(incarnation), every=0)
        assert marked(mark) == []


@pytest.mark.parametrize("script", [STARTED, FORKED, REPLACED], ids=["started", "before its start", "second zygote"])
async def test_a_frozen_process_of_a_dead_node_keeps_the_name(script: str) -> None:
    incarnation = uuid.uuid4()
    async with script_node(*node_of(incarnation, script)) as (node, mark):
        frozen = psutil.Process(int((await said(node))[0]))
        frozen.send_signal(signal.SIGSTOP)
        node.kill()
        await eventually(lambda: marked(mark) == [frozen], "all others to end")
        assert is_held(incarnation)
        frozen.kill()
        await eventually(lambda: not is_held(incarnation), "the kernel to free the name")
        assert marked(mark) == []


async def test_a_program_that_the_node_executes_does_not_keep_the_name() -> None:
    incarnation = uuid.uuid4()
    async with script_node(*node_of(incarnation, PROGRAM)) as (node, mark):
        program = psutil.Process(int((await said(node))[0]))
        node.kill()
        await eventually(lambda: not is_held(incarnation), "the kernel to free the name")
        assert marked(mark) == [program]


async def test_a_zygote_that_is_passed_something_else_does_not_start() -> None:
    script = """
async def main():
    zygote = ZygoteClient(liveness=os.open(os.devnull, os.O_RDONLY))
    try:
        await zygote.start()
    except Exception as error:
        print(type(error).__name__, flush=True)
"""
    async with script_node(script) as (node, _):
        assert await said(node) == ["Unavailable"]


def in_another_namespace(script: str) -> str:
    """What a Python script prints in a network namespace of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1)")
    command = [unshare, "--net", "--map-root-user", sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    if "unshare" in done.stderr:
        pytest.skip(f"namespaces cannot be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_in_another_network_namespace_the_name_cannot_be_seen_and_the_scope_says_so() -> None:
    incarnation = uuid.uuid4()
    script = f"""
import uuid
from service.wire.liveness import is_held, scope
print(scope(), is_held(uuid.UUID("{incarnation}")))
"""
    async with script_node(*node_of(incarnation, FORKED)) as (node, _):
        await said(node)
        here = scope()
        assert here is not None
        there, held = in_another_namespace(script).split()
        assert (is_held(incarnation), held) == (True, "False"), "asked there, a living node looks dead"
        assert there != here
        assert there.partition("/")[0] == here.partition("/")[0], "it is the same boot"
