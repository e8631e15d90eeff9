"""MediaService over the wire."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from service.domain.media import StoredMedia
from service.media.http import MediaHttpClient
from service.media.reference import read_reference, write_reference
from service.ports.processes import CallFailed
from tests.eventually import eventually
from tests.fakes.core import media_limits
from tests.fakes.serving import FakeService
from tests.media_host import MediaHost
from tests.rpc.statuses import detail, error_info
from tests.rpc.test_nodes import Place, place
from tests.stored_media import stored
from zap.v1 import content_pb2, session_pb2
from zap.v1 import media_pb2 as pb
from zap.v1.media_pb2_grpc import MediaServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub

PDF = b"%PDF-1.7" + bytes(2_500_000)


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as service, service.channel() as channel:
        SessionServiceStub(channel).Create(session_pb2.CreateRequest(session_id="a"))
        SessionServiceStub(channel).Create(session_pb2.CreateRequest(session_id="unpaired"))
        service.do(service.sessions.pair, "a")
        yield service


@pytest.fixture
def stub(service: FakeService) -> Iterator[MediaServiceStub]:
    with service.channel() as channel:
        yield MediaServiceStub(channel)


def header(**changed: Any) -> pb.UploadRequest:
    values: dict[str, Any] = {
        "session_id": "a",
        "kind": pb.MEDIA_KIND_DOCUMENT,
        "mime_type": "application/pdf",
        "size": len(PDF),
    }
    return pb.UploadRequest(header=pb.UploadHeader(**(values | changed)))


def chunks(data: bytes = PDF, size: int = 500_000) -> list[pb.UploadRequest]:
    return [pb.UploadRequest(chunk=data[at : at + size]) for at in range(0, len(data), size)]


def upload(stub: MediaServiceStub, data: bytes = PDF, size: int = 500_000, **changed: Any) -> pb.UploadResponse:
    return stub.Upload(iter([header(**{"size": len(data)} | changed), *chunks(data, size)]))


def refusal(stub: MediaServiceStub, requests: Sequence[pb.UploadRequest]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refused:
        stub.Upload(iter(requests))
    return refused.value


@pytest.mark.parametrize("size", [500_000, 499_979])
def test_a_file_in_chunks_becomes_a_reference(service: FakeService, stub: MediaServiceStub, size: int) -> None:
    response = upload(stub, size=size)
    assert service.sessions.owner.uploaded == [PDF]
    assert (response.size, response.mime_type) == (len(PDF), "application/pdf")
    assert response.sha256 == hashlib.sha256(PDF).digest()
    media = read_reference(response.reference)
    assert (media.size, media.sha256, media.mime_type) == (len(PDF), response.sha256, "application/pdf")
    assert media.create_time == response.create_time.ToDatetime(media.create_time.tzinfo if media.create_time else None)


def test_a_small_file_of_one_byte_each_is_a_file_too(service: FakeService, stub: MediaServiceStub) -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    upload(stub, jpeg, 1, kind=pb.MEDIA_KIND_IMAGE, mime_type="image/jpeg")
    assert service.sessions.owner.uploaded == [jpeg]


@pytest.mark.parametrize(
    ("requests", "reason", "field"),
    [
        ([header(size=5_000_000)], "MEDIA_TOO_LARGE", "header.size"),
        ([header(kind=pb.MEDIA_KIND_STICKER, size=5_000_000)], "MEDIA_TOO_LARGE", "header.size"),
        ([header(), *chunks(PDF + b"x")], "MEDIA_SIZE_MISMATCH", "header.size"),
        ([header(), *chunks(PDF[:-1])], "MEDIA_SIZE_MISMATCH", "header.size"),
        ([header()], "MEDIA_SIZE_MISMATCH", "header.size"),
        (
            [header(kind=pb.MEDIA_KIND_IMAGE, mime_type="image/png"), *chunks()],
            "MEDIA_TYPE_MISMATCH",
            "header.mime_type",
        ),
        ([header(kind=pb.MEDIA_KIND_IMAGE), *chunks()], "MEDIA_TYPE_MISMATCH", "header.mime_type"),
        ([header(), header()], "INVALID_ARGUMENT", "chunk"),
        (chunks(), "INVALID_ARGUMENT", "header"),
        ([pb.UploadRequest()], "INVALID_ARGUMENT", "part"),
        ([header(kind=0)], "INVALID_ARGUMENT", "header.kind"),
        ([header(kind=99)], "INVALID_ARGUMENT", "header.kind"),
        ([header(size=0)], "INVALID_ARGUMENT", "header.size"),
        ([header(size=2**31)], "INVALID_ARGUMENT", "header.size"),
        ([header(mime_type="pdf")], "INVALID_ARGUMENT", "header.mime_type"),
        ([header(mime_type="application/pdf\r\nx: y")], "INVALID_ARGUMENT", "header.mime_type"),
        ([header(session_id="A B")], "INVALID_ARGUMENT", "header.session_id"),
        ([header(), pb.UploadRequest(chunk=bytes(500_001))], "INVALID_ARGUMENT", "chunk"),
        ([header(), pb.UploadRequest(chunk=b"")], "INVALID_ARGUMENT", "chunk"),
        ([], "MALFORMED_REQUEST", "request"),
    ],
)
def test_a_wrong_upload_is_refused_and_nothing_is_stored(
    service: FakeService, stub: MediaServiceStub, requests: list[pb.UploadRequest], reason: str, field: str
) -> None:
    error = refusal(stub, requests)
    assert (error.code(), error_info(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert detail(error, details.BadRequest).field_violations[0].field == field
    assert service.sessions.owner.uploaded == []
    # All that was held is free again.
    upload(stub)


def test_a_still_sticker_may_be_smaller_than_an_animated_one(service: FakeService, stub: MediaServiceStub) -> None:
    still = b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(120_000)
    animated = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00" + bytes(120_000)
    sticker: dict[str, Any] = {"kind": pb.MEDIA_KIND_STICKER, "mime_type": "image/webp"}
    upload(stub, animated, **sticker)
    error = refusal(stub, [header(size=len(still), **sticker), *chunks(still)])
    assert error_info(error).reason == "MEDIA_TOO_LARGE"
    assert service.sessions.owner.uploaded == [animated]


def test_a_session_that_is_not_connected_is_refused_before_the_bytes(stub: MediaServiceStub) -> None:
    error = refusal(stub, [header(session_id="unpaired")])
    assert (error.code(), error_info(error).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_PAIRED")
    assert error_info(refusal(stub, [header(session_id="none")])).reason == "SESSION_NOT_FOUND"


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (CallFailed("x", certain=True, kind="UPLOAD_FAILED"), grpc.StatusCode.UNAVAILABLE, "UPLOAD_FAILED"),
        (CallFailed("x", certain=True, kind="UPLOAD_REFUSED"), grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_REFUSED"),
        (CallFailed("x", certain=True, kind="RATE_LIMITED"), grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
        (CallFailed("x", certain=True), grpc.StatusCode.UNAVAILABLE, "UPLOAD_FAILED"),
        (CallFailed("x", certain=False), grpc.StatusCode.UNAVAILABLE, "UPLOAD_TIMED_OUT"),
    ],
)
def test_what_the_process_reports_is_explained(
    service: FakeService, stub: MediaServiceStub, failure: CallFailed, code: grpc.StatusCode, reason: str
) -> None:
    service.sessions.owner.refuses_calls = failure
    error = refusal(stub, [header(), *chunks()])
    assert (error.code(), error_info(error).reason) == (code, reason)


def test_what_whatsapp_stored_wrongly_is_no_success(
    service: FakeService, stub: MediaServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(kind: Any, descriptor: int, size: int, timeout: float) -> StoredMedia:
        return StoredMedia(kind, "/v/1", bytes(32), bytes(32), bytes(32), size)

    monkeypatch.setattr(service.sessions.owner, "upload", other)
    error = refusal(stub, [header(), *chunks()])
    assert (error.code(), error_info(error).reason) == (grpc.StatusCode.DATA_LOSS, "UPLOAD_DAMAGED")


async def test_uploads_share_a_budget_which_a_caller_that_leaves_does_not_free() -> None:
    with FakeService() as service:
        async with grpc.aio.insecure_channel(service.address) as channel:
            media, sessions = MediaServiceStub(channel), SessionServiceStub(channel)
            await sessions.Create(session_pb2.CreateRequest(session_id="a"))
            service.do(service.sessions.pair, "a")
            service.do(service.sessions.owner.answers_uploads.clear)
            calls: list[Any] = [media.Upload(iter([header(), *chunks()])) for _ in range(2)]
            await eventually(lambda: service.sessions.owner.waiting_uploads == 2, "both are with the process")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await media.Upload(iter([header(), *chunks()]))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error_info(refused.value).reason == "UPLOAD_MEMORY_USED"
            assert detail(refused.value, details.RetryInfo).retry_delay.ToMilliseconds() > 0
            calls[0].cancel()
            await eventually(calls[0].done, "the caller has left")
            with pytest.raises(grpc.aio.AioRpcError, match="use the 6000000 bytes"):
                await media.Upload(iter([header(), *chunks()]))
            service.do(service.sessions.owner.answers_uploads.set)
            assert (await calls[1]).size == len(PDF)
            await media.Upload(iter([header(), *chunks()]))


@pytest.mark.parametrize("wrong", [{"mime_type": "pdf"}, {"kind": pb.MEDIA_KIND_IMAGE}, {"session_id": "none"}])
async def test_a_caller_that_still_writes_sees_why_it_is_refused(service: FakeService, wrong: dict[str, Any]) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        for _ in range(5):
            call: Any = MediaServiceStub(channel).Upload(iter([header(**wrong), *chunks(size=100_000)]))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert error_info(refused.value).reason in {"INVALID_ARGUMENT", "MEDIA_TYPE_MISMATCH", "SESSION_NOT_FOUND"}


async def test_a_caller_that_neither_writes_nor_ends_is_refused_too(service: FakeService) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        call: Any = MediaServiceStub(channel).Upload()
        await call.write(header(session_id="none"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert error_info(refused.value).reason == "SESSION_NOT_FOUND"


# --- other nodes


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Place, Place, MediaServiceStub]]:
    """Yield the owner of session "a", another node, and a stub of the other one."""
    async with place() as owner, place() as other:
        await owner.own("a")
        owner.sessions.pair("a")
        other.holders = [owner.holds]
        async with grpc.aio.insecure_channel(other.address) as channel:
            yield owner, other, MediaServiceStub(channel)


async def test_an_upload_reaches_the_owner_through_any_node() -> None:
    async with two_nodes() as (owner, other, stub):
        call: Any = stub.Upload(iter([header(), *chunks()]))
        response = await call
        assert owner.sessions.owner.uploaded == [PDF]
        assert response.sha256 == hashlib.sha256(PDF).digest()
        labels = {"method": "zap.v1.MediaService/Upload", "code": "OK"}
        assert other.registry.get_sample_value("zap_rpc_forwarded_total", labels) == 1


async def test_a_stream_is_passed_on_no_faster_than_the_owner_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = asyncio.Event()
    async with two_nodes() as (owner, _, stub):
        written = 0

        async def requests() -> Any:
            nonlocal written
            yield header(size=4_000_000)
            for _ in range(8):
                written += 1
                yield pb.UploadRequest(chunk=bytes(500_000))

        take = owner.uploads._take

        async def slow(new: Any, came: Any, file: Any, deadline: float) -> None:
            await reads.wait()
            async for chunk in came:
                take(new, chunk, file)

        monkeypatch.setattr(owner.uploads, "_receive", slow)
        call: Any = stub.Upload(requests())
        await eventually(lambda: written > 0, "the stream has begun")
        await asyncio.sleep(0.5)
        assert written < 8
        reads.set()
        assert (await call).size == 4_000_000


async def test_the_owner_s_refusal_comes_back_in_its_words() -> None:
    async with two_nodes() as (owner, _, stub):
        requests = [header(kind=pb.MEDIA_KIND_IMAGE, mime_type="image/png"), *chunks()]
        call: Any = stub.Upload(iter(requests))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert error_info(refused.value).reason == "MEDIA_TYPE_MISMATCH"
        assert owner.sessions.owner.uploaded == []


async def test_a_node_that_is_no_longer_the_owner_takes_nothing() -> None:
    async with two_nodes() as (owner, _, stub):
        owner.owned.clear()
        owner.holders = [None]
        call: Any = stub.Upload(iter([header(), *chunks()]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error_info(refused.value).reason == "OWNER_UNREACHABLE"
        assert owner.sessions.owner.uploaded == []


async def test_a_caller_that_leaves_ends_the_stream_to_the_owner() -> None:
    async with two_nodes() as (owner, _, stub):
        begun = asyncio.Event()

        async def requests() -> Any:
            yield header()
            yield chunks()[0]
            begun.set()
            await asyncio.Event().wait()

        call: Any = stub.Upload(requests())
        await begun.wait()
        await eventually(lambda: owner.uploads._memory.used == len(PDF), "the owner has begun")
        call.cancel()
        await eventually(lambda: owner.uploads._memory.used == 0, "the owner has given up")
        assert owner.sessions.owner.uploaded == []


# --- downloads

FILE = bytes(number % 251 for number in range(600_000))
BODY, MEDIA = stored(FILE)


@pytest.fixture
async def host() -> MediaHost:
    return MediaHost(bodies={"/v/t62/1.enc": BODY})


@asynccontextmanager
async def downloading(host: MediaHost, **limits: Any) -> AsyncIterator[MediaServiceStub]:
    """Serve with a session "a" that is not connected, and has the host's proxy."""
    async with host.listening() as proxy:
        with FakeService(limits=media_limits(**limits), http=MediaHttpClient(host.context)) as service:
            async with grpc.aio.insecure_channel(service.address) as channel:
                create = session_pb2.CreateRequest(session_id="a", proxy_url=f"http://{proxy}")
                await SessionServiceStub(channel).Create(create)
                yield MediaServiceStub(channel)


async def read(stub: MediaServiceStub, request: pb.DownloadRequest) -> bytes:
    call: Any = stub.Download(request)
    return b"".join([response.chunk async for response in call])


def content(**changed: Any) -> pb.DownloadRequest:
    values: dict[str, Any] = {
        "direct_path": MEDIA.direct_path,
        "media_key": MEDIA.media_key,
        "encrypted_sha256": MEDIA.encrypted_sha256,
        "sha256": MEDIA.sha256,
        "size": MEDIA.size,
        "url": "https://evil.example/steal",
    }
    kind = changed.pop("kind", content_pb2.Content.KIND_DOCUMENT)
    media = content_pb2.MediaContent(**(values | changed))
    return pb.DownloadRequest(session_id="a", content=content_pb2.Content(kind=kind, media=media))


async def test_a_file_is_read_by_its_reference_and_by_the_content_of_its_event(host: MediaHost) -> None:
    async with downloading(host) as stub:
        reference = pb.DownloadRequest(session_id="a", reference=write_reference(MEDIA))
        assert await read(stub, reference) == FILE
        assert await read(stub, content()) == FILE
        assert await read(stub, content(size=0, sha256=b"")) == FILE
    # The address that a stranger wrote is not used.
    assert set(host.tunnels) == {"mmg.whatsapp.net:443"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (content(direct_path="v/1"), "content.media.direct_path"),
        (content(direct_path="https://evil.example/"), "content.media.direct_path"),
        (content(direct_path="/v/1 HTTP/1.1\r\nHost: evil"), "content.media.direct_path"),
        (content(direct_path="/v/1#x"), "content.media.direct_path"),
        (content(direct_path="/ü"), "content.media.direct_path"),
        (content(direct_path=""), "content.media.direct_path"),
        (content(media_key=b"short"), "content.media.media_key"),
        (content(encrypted_sha256=b""), "content.media.encrypted_sha256"),
        (content(sha256=b"x"), "content.media.sha256"),
        (content(kind=content_pb2.Content.KIND_TEXT), "content"),
        (pb.DownloadRequest(session_id="a", content=content_pb2.Content()), "content"),
        (pb.DownloadRequest(session_id="a", reference=b"x"), "reference"),
        (pb.DownloadRequest(session_id="a"), "file"),
    ],
)
async def test_a_file_that_cannot_be_asked_for_is_refused(
    host: MediaHost, request_: pb.DownloadRequest, field: str
) -> None:
    async with downloading(host) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read(stub, request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(refused.value, details.BadRequest).field_violations[0].field == field
    assert host.tunnels == []


async def test_an_expired_file_is_not_found(host: MediaHost) -> None:
    host.statuses = [410]
    async with downloading(host) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await read(stub, content())
    assert (gone.value.code(), error_info(gone.value).reason) == (grpc.StatusCode.NOT_FOUND, "MEDIA_EXPIRED")
    assert detail(gone.value, details.ResourceInfo).resource_type == "zap.v1.MediaContent"


async def test_a_damaged_file_ends_with_data_loss(host: MediaHost) -> None:
    host.bodies["/v/t62/1.enc"] = BODY[:-1] + bytes([BODY[-1] ^ 1])
    async with downloading(host) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as damaged:
            await read(stub, content())
    assert (damaged.value.code(), error_info(damaged.value).reason) == (grpc.StatusCode.DATA_LOSS, "MEDIA_DAMAGED")


async def test_a_download_that_takes_too_long_is_ended(host: MediaHost) -> None:
    host.silent = True
    async with downloading(host, timeout=0.2) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read(stub, content())
    assert (ended.value.code(), error_info(ended.value).reason) == (grpc.StatusCode.UNAVAILABLE, "DOWNLOAD_TIMED_OUT")
