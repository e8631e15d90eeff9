"""Files through the real library: stored at a media host of this test, and read from it on any node."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

from service.media.decryption import encrypted_size
from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.media_host import MediaHost
from tests.rpc.statuses import error_info
from tests.service_process import ServiceProcess
from zap.v1 import media_pb2 as pb
from zap.v1 import session_pb2
from zap.v1.media_pb2_grpc import MediaServiceStub

JPEG = b"\xff\xd8\xff\xe0" + bytes(number * 7 % 256 for number in range(3_000_000))


@dataclass(frozen=True)
class Stage:
    """Two nodes, the first of which owns the session "anna", and a media host."""

    owner: ServiceProcess
    other: ServiceProcess
    host: MediaHost


@pytest.fixture
async def stage(node_environment: dict[str, str], simulator: SimulatorControl, tmp_path: Path) -> AsyncIterator[Stage]:
    host = MediaHost()
    authority = tmp_path / "ca.pem"
    authority.write_bytes(host.authority.pem)
    async with host.listening() as proxy:
        # The simulator's WebSocket has no TLS, so this proxy is for media alone.
        environment = {**node_environment, "HTTPS_PROXY": f"http://{proxy}", "SSL_CERT_FILE": str(authority)}
        environment |= {"ZAP_NODE_SECRET": "of-all-nodes-of-this-test", "ZAP_MEDIA_TIMEOUT": "5"}
        async with ServiceProcess(environment) as owner:
            await pair(owner, simulator, "anna", await new_phone(simulator, "Anna"))
            async with ServiceProcess(environment) as other:
                yield Stage(owner, other, host)


async def upload(node: ServiceProcess, data: bytes = JPEG) -> pb.UploadResponse:
    header = pb.UploadHeader(session_id="anna", kind=pb.MEDIA_KIND_IMAGE, mime_type="image/jpeg", size=len(data))
    chunks = [pb.UploadRequest(chunk=data[at : at + 500_000]) for at in range(0, len(data), 500_000)]
    call: Any = MediaServiceStub(node.channel).Upload(iter([pb.UploadRequest(header=header), *chunks]))
    response: pb.UploadResponse = await call
    return response


async def download(node: ServiceProcess, reference: bytes) -> bytes:
    call: Any = MediaServiceStub(node.channel).Download(pb.DownloadRequest(session_id="anna", reference=reference))
    return b"".join([response.chunk async for response in call])


async def test_a_file_is_stored_by_the_library_and_read_on_any_node(stage: Stage) -> None:
    through_owner, through_other = await upload(stage.owner), await upload(stage.other)
    assert through_owner.sha256 == through_other.sha256 == hashlib.sha256(JPEG).digest()
    # What WhatsApp got is what the real library sends.
    for target, body in stage.host.uploads:
        assert len(body) == encrypted_size(len(JPEG))
        token = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
        assert urlsplit(target).path == f"/mms/image/{token}"
        assert parse_qs(urlsplit(target).query)["token"] == [token]
    # The session need not be connected.
    await stage.owner.sessions.Deactivate(session_pb2.DeactivateRequest(session_id="anna"))
    for node in (stage.owner, stage.other):
        for response in (through_owner, through_other):
            assert await download(node, response.reference) == JPEG


async def test_an_upload_that_fails_says_why_without_whatsapp_s_credentials(stage: Stage) -> None:
    stage.host.statuses = [413]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await upload(stage.owner)
    assert error_info(refused.value).reason == "UPLOAD_REFUSED"
    stage.host.drops_uploads = True
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await upload(stage.owner)
    assert error_info(failed.value).reason == "UPLOAD_FAILED"
    credentials = parse_qs(urlsplit(stage.host.uploads[-1][0]).query)
    for secret in (credentials["auth"][0], credentials["token"][0]):
        assert secret not in str(failed.value)
        assert secret not in stage.owner.log()
    stage.host.drops_uploads = False
    assert (await upload(stage.owner)).size == len(JPEG)


async def test_an_upload_that_hangs_is_given_up_and_other_calls_go_on(stage: Stage) -> None:
    stage.host.silent = True
    hanging = asyncio.create_task(upload(stage.owner))
    await stage.owner.status("anna")
    with pytest.raises(grpc.aio.AioRpcError) as given_up:
        await hanging
    assert error_info(given_up.value).reason == "UPLOAD_TIMED_OUT"
    stage.host.silent = False
    assert (await upload(stage.owner)).size == len(JPEG)
