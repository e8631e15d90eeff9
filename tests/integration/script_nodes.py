"""Nodes made of a script: a pool and nothing else, in a process of its own that can be killed."""

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
MARK = "ZAP_TEST_MARK"

PROLOGUE = """
import asyncio, ctypes, os, signal, sys, time
from service.workers.pool import Pool, PoolSettings
from service.workers.zygote import ZygoteClient
from service.ports.processes import StartOrder

async def hold():
    print("there", flush=True)
    await asyncio.sleep(600)

async def start(pool, number):
    # A permit of ten minutes: it is not what ends them.
    return await pool.start(StartOrder(f"s{number}", 1, "", "", time.monotonic() + 600))

async def processes_that_load():
    pool = Pool(PoolSettings("postgresql://zap@127.0.0.1:9/none", preload="tests.integration.preloads:take_long"))
    return pool, [await start(pool, number) for number in range(3)]
"""

Node = tuple[asyncio.subprocess.Process, str]


@contextlib.asynccontextmanager
async def script_node(script: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Node]:
    """A node made of a script, and a mark that is in the environment of it and of all it starts."""
    mark = f"{uuid.uuid4()}"
    path = f"{ROOT}{os.pathsep}{ROOT / 'generated'}"
    node = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{PROLOGUE}\n{script}\nasyncio.run(main())"),
        env={**os.environ, **(environment or {}), "PYTHONPATH": path, MARK: mark},
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield node, mark
    finally:
        for process in marked(mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
        await node.wait()


def marked(mark: str) -> list[psutil.Process]:
    """All that run with this mark; the environment of a zombie cannot be read any more."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


async def said(node: asyncio.subprocess.Process) -> list[str]:
    """The words of its next line."""
    assert node.stdout is not None
    line = await asyncio.wait_for(node.stdout.readline(), 30)
    assert line, "the node ended"
    return line.decode().split()
