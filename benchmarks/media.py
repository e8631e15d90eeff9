"""What a file of 64 MiB costs: `python -m benchmarks.media`.

The memory of node and session process beside what is theirs anyway, during an Upload by way of the owner, one by way of
another node, and a Download. The real library uploads to a media host of this process.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from benchmarks.calls import pair
from tests.media_host import MediaHost
from tests.scenarios.servers import open_folder, servers
from tests.service_process import ServiceProcess
from zap.v1 import media_pb2 as pb
from zap.v1.media_pb2_grpc import MediaServiceStub

SIZE = 64 * 1024 * 1024
CHUNK = 500_000
_LOOK_S = 0.005


def anonymous(pid: int) -> int:
    """Bytes of private memory of a process, without files and memfds."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


@contextmanager
def watched(name: str, **pids: int) -> Iterator[None]:
    """Write how long this took, and by how much each process grew at the peak."""
    before = {of: anonymous(pid) for of, pid in pids.items()}
    peaks, stop = dict(before), Event()

    def look() -> None:
        while not stop.wait(_LOOK_S):
            for of, pid in pids.items():
                peaks[of] = max(peaks[of], anonymous(pid))

    looking = Thread(target=look)
    looking.start()
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        stop.set()
        looking.join()
    grown = ", ".join(f"{of} +{(peaks[of] - before[of]) / 2**20:.1f} MiB" for of in pids)
    sys.stdout.write(f"{name:32} {seconds:5.2f} s   {grown}\n")


async def upload(node: ServiceProcess, size: int = SIZE) -> bytes:
    """Upload zeros as a document; return the reference."""

    async def requests() -> Any:
        header = pb.UploadHeader(session_id="shop", kind=pb.MEDIA_KIND_DOCUMENT, mime_type="application/x", size=size)
        yield pb.UploadRequest(header=header)
        for at in range(0, size, CHUNK):
            yield pb.UploadRequest(chunk=bytes(min(CHUNK, size - at)))

    call: Any = MediaServiceStub(node.channel).Upload(requests())
    return bytes((await call).reference)


async def download(node: ServiceProcess, reference: bytes) -> None:
    """Read it, and keep nothing."""
    received = 0
    call: Any = MediaServiceStub(node.channel).Download(pb.DownloadRequest(session_id="shop", reference=reference))
    async for response in call:
        received += len(response.chunk)
    if received not in (SIZE, 1000):
        raise AssertionError(f"{received} bytes came")


def session_process(node: ServiceProcess) -> int:
    """The process of the one session: the youngest below the node."""
    youngest = max(psutil.Process(node.pid).children(recursive=True), key=lambda child: float(child.create_time()))
    return int(youngest.pid)


async def measure() -> None:
    """All of it, each after a small one, which loads code and opens connections."""
    host = MediaHost()
    with open_folder() as folder:
        authority = folder / "ca.pem"
        authority.write_bytes(host.authority.pem)
        async with servers(durable=False) as there, host.listening() as proxy:
            more = {
                "HTTPS_PROXY": f"http://{proxy}",
                "SSL_CERT_FILE": str(authority),
                "ZAP_NODE_SECRET": "of-both-nodes-of-this",
            }
            environment = there.environment(ZAP_LOG_LEVEL="warning", ZAP_REBALANCE="0", **more)
            async with ServiceProcess(environment) as owner:
                # Before the other node is there, which might claim the session.
                await pair(owner, there.simulator.control, "shop", "491700000000")
                async with ServiceProcess(environment) as other:
                    await rounds(owner, other)


async def rounds(owner: ServiceProcess, other: ServiceProcess) -> None:
    """Each a second time too: the first leaves what the allocators keep."""
    process = session_process(owner)
    for node in (owner, other):
        await download(node, await upload(node, 1000))
    with watched("Upload", node=owner.pid, session=process):
        reference = await upload(owner)
    with watched("Upload again", node=owner.pid, session=process):
        await upload(owner)
    with watched("Upload through another node", other=other.pid, owner=owner.pid):
        await upload(other)
    with watched("Download", node=other.pid):
        await download(other, reference)
    with watched("Download again", node=other.pid):
        await download(other, reference)


if __name__ == "__main__":
    asyncio.run(measure())
