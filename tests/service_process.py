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
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import grpc
import psutil
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from zap.v1 import message_pb2, message_pb2_grpc, session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from zap.v1.message_pb2_grpc import MessageServiceAsyncStub
    from zap.v1.session_pb2_grpc import SessionServiceAsyncStub

ROOT = Path(__file__).resolve().parents[1]
State = session_pb2.Session.State


def free_port() -> int:
    """A port that nobody listens on now, and nobody gets by chance while its node is down: calls go out by others."""
    while True:
        port = secrets.choice(range(10_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class ServiceProcess:
    """One node. `async with ServiceProcess(...) as node:` starts it, waits until it is ready, and stops it."""

    def __init__(self, environment: Mapping[str, str], *, output: IO[bytes] | None = None) -> None:
        self.port = free_port()
        self.http_port = free_port()
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'generated'}",
            "ZAP_ENVIRONMENT": "test",
            "ZAP_LISTEN": f"127.0.0.1:{self.port}",
            "ZAP_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            **environment,
        }
        self._output = output or tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None

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

    @property
    def address(self) -> str:
        """For callers."""
        return f"127.0.0.1:{self.port}"

    @property
    def sessions(self) -> "SessionServiceAsyncStub":
        """SessionService on this node."""
        return session_pb2_grpc.SessionServiceStub(self.channel)

    @property
    def messages(self) -> "MessageServiceAsyncStub":
        """MessageService on this node."""
        return message_pb2_grpc.MessageServiceStub(self.channel)

    @property
    def channel(self) -> grpc.aio.Channel:
        """A channel to this node; made anew after each start, since a broken one backs off."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address)
        return self._channel

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
        """Execute it; it may not be ready yet, or never become so."""
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
        while not await self._serving():
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
        await self._hang_up()
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
        await self._hang_up()
        victims = self.processes()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        await self.wait()
        await asyncio.to_thread(psutil.wait_procs, victims, 10)

    async def kill_node(self) -> None:
        """SIGKILL to the node alone."""
        await self._hang_up()
        os.kill(self.pid, signal.SIGKILL)
        await self.wait()

    def log(self) -> str:
        """All that it printed since it was first started."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    async def _serving(self) -> bool:
        # Its stubs have no attributes.
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            await self._hang_up()
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _hang_up(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    # --- steps that many tests take -----------------------------------------------------------------------------

    async def create(self, session_id: str, *, activate: bool = True) -> session_pb2.Session:
        """A session, wanted unless said otherwise."""
        session = await self.sessions.Create(session_pb2.CreateRequest(session_id=session_id))
        if activate:
            session = await self.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))
        return session

    async def status(self, session_id: str) -> session_pb2.Session:
        """The session as it is now."""
        return await self.sessions.Status(session_pb2.StatusRequest(session_id=session_id))

    async def qr_updates(self, session_id: str) -> AsyncGenerator[session_pb2.StreamQRResponse, None]:
        """What StreamQR gives. Closing it hangs up: use contextlib.aclosing where not all is read."""
        call = self.sessions.StreamQR(session_pb2.StreamQRRequest(session_id=session_id))
        try:
            async for update in call:
                yield update
        finally:
            call.cancel()

    async def first_code(self, session_id: str, timeout: float = 15.0) -> str:
        """The text of the code on show."""
        async with asyncio.timeout(timeout), contextlib.aclosing(self.qr_updates(session_id)) as updates:
            async for update in updates:
                if update.HasField("code"):
                    return update.code.text
                raise AssertionError(f"no code but {update}")
        raise AssertionError("the stream ended without a code")

    async def outcome(self, session_id: str, timeout: float = 30.0) -> session_pb2.StreamQRResponse:
        """The last message of StreamQR."""
        last = None
        async with asyncio.timeout(timeout), contextlib.aclosing(self.qr_updates(session_id)) as updates:
            async for update in updates:
                last = update
        if last is None or not last.outcome:
            raise AssertionError(f"the stream ended without an outcome, after {last}")
        return last

    async def wait_state(
        self,
        session_id: str,
        *states: "session_pb2.Session.State.ValueType",
        timeout: float = 15.0,
        after_epoch: int = 0,
    ) -> session_pb2.Session:
        """Until the session is in one of these states; TimeoutError tells where it was instead.

        `after_epoch`: and owned under a later one. Until a killed node's lease ends, its word is still believed.
        """
        deadline = time.monotonic() + timeout
        while True:
            session = await self.status(session_id)
            if session.state in states and (not after_epoch or session.owner.epoch > after_epoch):
                return session
            if time.monotonic() > deadline:
                wanted = ", ".join(State.Name(state) for state in states)
                raise TimeoutError(f"{session_id} was not {wanted} after {timeout} s but\n{session}")
            await asyncio.sleep(0.02)

    async def send(self, session_id: str, to: str, body: str, request_id: str) -> message_pb2.Message:
        """Send a text."""
        request = message_pb2.SendRequest(
            session_id=session_id, to=to, request_id=request_id, text=message_pb2.Text(body=body)
        )
        return await self.messages.Send(request, timeout=20)


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
