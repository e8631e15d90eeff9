"""The service as its users run it: `python -m service serve` in processes of its own, spoken to over gRPC."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

import grpc
import psutil
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.caller import Caller
from tests.node_template import PYTHON_PATH, ForkedNode, NodeTemplate

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port that nobody listens on now, and nobody gets by chance while its node is down: calls go out by others."""
    while True:
        port = secrets.choice(range(10_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class ServiceProcess(Caller):
    """One node. `async with ServiceProcess(...) as node:` starts it, waits until it is ready, and stops it."""

    template: ClassVar[NodeTemplate | None] = None
    """What forks nodes; None: each is executed."""

    def __init__(self, environment: Mapping[str, str], *, output: IO[bytes] | None = None) -> None:
        self.port = free_port()
        super().__init__(f"127.0.0.1:{self.port}")
        self.http_port = free_port()
        self._environment = {
            **os.environ,
            "PYTHONPATH": PYTHON_PATH,
            "ZAP_ENVIRONMENT": "test",
            "ZAP_LISTEN": f"127.0.0.1:{self.port}",
            "ZAP_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            **environment,
        }
        self._output = output or tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._process: asyncio.subprocess.Process | ForkedNode | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        await self.wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if error is not None:
            sys.stderr.write(self.log())

    @property
    def pid(self) -> int:
        """Of the node itself."""
        if self._process is None:
            raise RuntimeError("the node was never started")
        return self._process.pid

    def processes(self) -> list[psutil.Process]:
        """The node, its zygote and its session processes."""
        try:
            node = psutil.Process(self.pid)
            return [node, *node.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def session_processes(self) -> list[psutil.Process]:
        """Children of the zygote."""
        return [child for zygote in self.processes()[1:2] for child in zygote.children()]

    async def start(self) -> None:
        """Start its process; it may not be ready yet, or never become so."""
        # Another interpreter or other paths take effect at an exec alone.
        if self.template is not None and self._environment["PYTHONPATH"] == PYTHON_PATH:
            self._process = self.template.start(self._environment, self._output.fileno())
            return
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "serve"),
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._output,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """Until its health says SERVING."""
        deadline = time.monotonic() + timeout
        while not await self.is_serving():
            if self._process is not None and self._process.returncode is not None:
                raise RuntimeError(f"the node ended with {self._process.returncode} before it was ready:\n{self.log()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node was not ready after {timeout} s:\n{self.log()}")
            await asyncio.sleep(0.02)

    async def wait(self, timeout: float = 30.0) -> int:
        """Until it has ended by itself; its exit code."""
        if self._process is None:
            raise RuntimeError("the node was never started")
        return await asyncio.wait_for(self._process.wait(), timeout)

    async def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, and its exit code."""
        await self.hang_up()
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return await self.wait(timeout)
        except TimeoutError:
            self._process.send_signal(signal.SIGUSR1)
            await asyncio.sleep(1)
            raise TimeoutError(f"the node did not stop in {timeout} s:\n{self.log()}") from None

    async def kill_all(self) -> None:
        """SIGKILL to every process of the service, as when the machine's power goes; returns when all are dead."""
        await self.hang_up()
        victims = self.processes()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        await self.wait()
        await asyncio.to_thread(psutil.wait_procs, victims, 10)

    async def kill_node(self) -> None:
        """SIGKILL to the node alone."""
        await self.hang_up()
        os.kill(self.pid, signal.SIGKILL)
        await self.wait()

    def log(self) -> str:
        """All that it printed since it was first started."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; whoever adopted it may take its time to reap it."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of an error; there must be one."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    if status is None:
        raise AssertionError(f"an error without google.rpc.Status: {error}")
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    raise AssertionError(f"an error without ErrorInfo: {status}")
