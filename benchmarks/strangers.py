"""What a stranger without the token, and an honest burst, do to a node: `python -m benchmarks.strangers [word]`.

The word chooses the trials whose name has it; without one all are made.
Each trial has a node of its own and an attacker in a process of its own. Another caller asks for a session's Status
all the while: what it is answered, and how late, is told, and so is what the node's memory grew by.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.raw_http2 import Connection, begin_message
from tests.scenarios.servers import open_folder
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2, session_pb2_grpc

TOKEN = "correct-horse-battery-staple"  # noqa: S105 - of a node that lives for seconds
METADATA = (("authorization", f"Bearer {TOKEN}"),)
SEND, CHECK = "/zap.v1.MessageService/Send", "/grpc.health.v1.Health/Check"
STREAMS, BODY = 40, 15 * 1024 * 1024
BURST, CHANNELS = 2_000, 20
SECONDS = 8.0
MIB = 1024 * 1024


async def bodies(address: str, method: str, size: int, streams: int) -> None:
    """Leave bodies unfinished, four streams on each connection."""
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(address)) for _ in range(streams // 4)]
        await asyncio.sleep(0.1)
        sending = [
            asyncio.create_task(each.send(each.open(method), begin_message(size, bytes(size - 1))))
            for each in connections * 4
        ]
        await asyncio.sleep(SECONDS)
        taken = [stream for each in connections for stream in each.streams.values()]
        megabytes = sum(stream.taken for stream in taken) / MIB
        ended = sum(stream.ended.is_set() for stream in taken)
        sys.stdout.write(f"    the node took in {megabytes:.0f} MiB; {ended} of {len(taken)} streams were ended\n")
        for task in sending:
            task.cancel()


async def resets(address: str, rate: int) -> None:
    """Open calls and reset them, so many a second."""
    started, sent = time.perf_counter(), 0
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(Connection(address))
        while (passed := time.perf_counter() - started) < SECONDS:
            if connection.closed.is_set():
                connection = await stack.enter_async_context(Connection(address))
            due = int(passed * rate) - sent if rate else 1_000
            with contextlib.suppress(OSError):
                await connection.open_and_reset(SEND, begin_message(10, b"12345"), due)
            sent += due
            await asyncio.sleep(0.01 if rate else 0)
    sys.stdout.write(f"    {sent / SECONDS:.0f} resets/s were sent\n")


async def burst(address: str, channels: int) -> None:
    """Make 2,000 calls at once, with the token."""
    async with contextlib.AsyncExitStack() as stack:
        options = (("grpc.use_local_subchannel_pool", 1),)
        stubs: list[Any] = [
            session_pb2_grpc.SessionServiceStub(
                await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            )
            for _ in range(channels)
        ]
        answers = Answers()
        await asyncio.gather(*(answers.ask(stubs[n % channels], timeout=60) for n in range(BURST)))
    sys.stdout.write(f"    the burst over {channels} connections: {answers}\n")


@dataclass
class Answers:
    """What a caller was answered."""

    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def ask(self, stub: Any, timeout: float = 10) -> None:
        """One Status."""
        started = time.perf_counter()
        try:
            await stub.Status(session_pb2.StatusRequest(session_id="shop"), metadata=METADATA, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            if error.code() is grpc.StatusCode.UNAVAILABLE and not _says_when(error):
                name += " without RetryInfo"
            self.codes[name] += 1
        else:
            self.codes["OK"] += 1
        self.seconds.append(time.perf_counter() - started)

    def __str__(self) -> str:
        """Codes, and the median and the longest time."""
        codes = ", ".join(f"{count} {name}" for name, count in sorted(self.codes.items()))
        ordered = sorted(self.seconds)
        return f"{codes}; median {ordered[len(ordered) // 2] * 1000:.0f} ms, longest {ordered[-1] * 1000:.0f} ms"


def _says_when(error: grpc.aio.AioRpcError) -> bool:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    return status is not None and any(each.Is(details.RetryInfo.DESCRIPTOR) for each in status.details)


ATTACKS: dict[str, Callable[[str], Awaitable[None]]] = {
    "40 unfinished bodies of 15 MiB to Send": lambda address: bodies(address, SEND, BODY, STREAMS),
    "200 unfinished bodies of 0.9 MiB to Send": lambda address: bodies(address, SEND, 9 * MIB // 10, 200),
    "200 unfinished bodies of 0.9 MiB to Health.Check": lambda address: bodies(address, CHECK, 9 * MIB // 10, 200),
    "2,000 resets a second": lambda address: resets(address, 2_000),
    "10,000 resets a second": lambda address: resets(address, 10_000),
    "as many resets as it can": lambda address: resets(address, 0),
    "2,000 calls at once over one connection": lambda address: burst(address, 1),
    "2,000 calls at once over 20 connections": lambda address: burst(address, CHANNELS),
}


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[ServiceProcess]:
    """A node with a token, and a session that is not paired."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(open_folder())
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder, durable=False, die_with_starter=True))
        valkey = await stack.enter_async_context(EmbeddedValkey(folder, die_with_starter=True))
        servers = {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url, "ZAP_AUTH_TOKEN": TOKEN}
        node = await stack.enter_async_context(ServiceProcess(servers))
        stub: Any = session_pb2_grpc.SessionServiceStub(node.channel)
        await stub.Create(session_pb2.CreateRequest(session_id="shop"), metadata=METADATA)
        yield node


async def attack(name: str) -> None:
    """One trial."""
    async with served() as node:
        process = psutil.Process(node.pid)
        before = peak = process.memory_info().rss / MIB
        attacker = await asyncio.create_subprocess_exec(sys.executable, "-m", __spec__.name, node.address, name)
        ended = asyncio.create_task(attacker.wait())
        other = Answers()
        async with grpc.aio.insecure_channel(node.address) as channel:
            stub = session_pb2_grpc.SessionServiceStub(channel)
            while not ended.done():
                await other.ask(stub)
                with contextlib.suppress(psutil.NoSuchProcess):
                    peak = max(peak, process.memory_info().rss / MIB)
                await asyncio.sleep(0.05)
        lines = node.log().count("\n")
        sys.stdout.write(f"    another caller: {other}\n    memory {before:.0f} -> {peak:.0f} MiB; {lines} log lines\n")


async def measure(word: str) -> None:
    """All trials whose name has a word."""
    for name in (each for each in ATTACKS if word in each):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        await attack(name)


if __name__ == "__main__":
    if sys.argv[2:]:
        asyncio.run(ATTACKS[sys.argv[2]](sys.argv[1]))  # type: ignore[arg-type]
    else:
        asyncio.run(measure("".join(sys.argv[1:])))
