"""Stand-ins for a session process: a Python script with a socket, forked by nobody's zygote, as bad as needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from service.domain.observations import Ended, Observed
from service.domain.start_scheduler import Lane
from service.ports.metrics import Metrics
from service.wire import framing
from service.workers.hosted_session import HostedSession
from service.workers.process import Process
from service.workers.zygote_process import Child
from zap.worker.v1 import frames_pb2

ROOT = Path(__file__).resolve().parents[2]

PROLOGUE = """
import faulthandler, os, signal, socket, sys, threading, time
from google.protobuf.any import pack
from zap.v1 import event_pb2, message_pb2
from zap.worker.v1 import calls_pb2, frames_pb2
from service.wire import framing

faulthandler.enable()
faulthandler.register(signal.SIGUSR1)
node = socket.socket(fileno=int(sys.argv[1]))

def tell(**body):
    session_id = "" if "progress" in body else "one"
    node.sendall(framing.frame(frames_pb2.Frame(session_id=session_id, **body)))

def got(**fields):
    received = event_pb2.MessageReceived(**fields)
    return event_pb2.Event(type=event_pb2.Event.TYPE_MESSAGE_RECEIVED, message_received=received)

attachments = []

def command():
    received = framing.receive_with_file(node)
    if received is None:
        return None
    attachments.append(received[1])
    return frames_pb2.Command.FromString(received[0])

os.write(int(sys.argv[2]), b"r")
start = command().start
tell(progress=frames_pb2.Progress())
"""


class ScriptedChild:
    """A child process that runs a script after it was started; reaped here, as the zygote would."""

    def __init__(self, script: str) -> None:
        self._ours, theirs = framing.socket_pair()
        stderr = framing.limited_file()
        self._ready, ready = os.pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROLOGUE + textwrap.dedent(script), str(theirs.fileno()), str(ready)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'generated'}"},
                pass_fds=[theirs.fileno(), ready],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        os.close(ready)
        self.exit_status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.child = Child(self.process.pid, os.pidfd_open(self.process.pid), stderr, self._ours, self.exit_status)
        self._reaping = asyncio.create_task(self._reap())

    async def begin(self, permit: float = 60.0, metrics: Metrics | None = None) -> HostedSession:
        """The node's side of it, started; a forked process would not import anything first."""
        assert await asyncio.to_thread(os.read, self._ready, 1), "it ended before it was ready"
        os.close(self._ready)
        process = Process(self.child, {"session_id": "one", "epoch": 1})
        session = HostedSession(process, "one", 1, Lane.CLAIM, metrics)
        deadline = int((time.monotonic() + permit) * 1e9)
        await process.begin(session, frames_pb2.Start(session_id="one", permit=frames_pb2.Permit(deadline_ns=deadline)))
        return session

    async def close(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self._reaping

    async def _reap(self) -> None:
        # Dead first, reaped then: it stays a zombie until its pidfd has told.
        status = await asyncio.to_thread(self.process.wait)
        if not self.exit_status.done():
            self.exit_status.set_result(status)


async def all_of(session: HostedSession, timeout: float = 15) -> tuple[list[Observed], Ended]:
    """Everything it reports, and how it ended."""
    async with asyncio.timeout(timeout):
        heard = [observed async for batch in session.observations() for observed in batch]
    last = heard.pop().observation
    assert isinstance(last, Ended)
    assert not any(isinstance(observed.observation, Ended) for observed in heard)
    return heard, last
