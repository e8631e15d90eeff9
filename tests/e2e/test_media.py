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
from zap.v1 import message_pb2, session_pb2, watch_pb2
from zap.v1.media_pb2_grpc import MediaServiceStub
from zap.v1.watch_pb2_grpc import EventServiceStub

SMALL = b"\xff\xd8\xff\xe0small"
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


async def test_a_file_that_one_session_sends_is_downloaded_by_the_event_of_another(
    stage: Stage, simulator: SimulatorControl
) -> None:
    ben = await new_phone(simulator, "Ben")
    await pair(stage.owner, simulator, "ben", ben)
    reference = (await upload(stage.owner)).reference
    inline = message_pb2.MediaFile.Inline(data=SMALL, mime_type="image/jpeg")
    sent: dict[str, bytes] = {}
    for data, file in (
        (JPEG, message_pb2.MediaFile(reference=reference)),
        (SMALL, message_pb2.MediaFile(inline=inline)),
    ):
        image = message_pb2.Image(file=file, caption="hi")
        request = message_pb2.SendRequest(session_id="anna", to=ben, request_id=f"r-{len(data)}", image=image)
        message = await stage.other.messages.Send(request)
        assert message.state in (message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_DELIVERED), message
        sent[message.message_id] = data
    wanted = watch_pb2.WatchRequest(session_ids=["ben"], from_start=True)
    async with asyncio.timeout(20):
        watching: Any = EventServiceStub(stage.other.channel).Watch(wanted)
        async for response in watching:
            received = response.event.message_received
            if received.message_id in sent:
                media: Any = MediaServiceStub(stage.other.channel)
                call = media.Download(pb.DownloadRequest(session_id="ben", content=received.content))
                data = b"".join([part.chunk async for part in call])
                assert data == sent.pop(received.message_id)
                assert received.content.media.caption == "hi"
            if not sent:
                break
