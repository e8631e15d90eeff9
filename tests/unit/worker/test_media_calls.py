import ctypes
import hashlib
import io
import os
import threading
from collections.abc import Iterator

import pytest
from neonize.proto.Neonize_pb2 import UploadResponse

from service.domain.media import MediaKind
from service.media.reference import read_reference
from service.media.sealed_file import SealedFile
from service.worker.session import media_calls
from service.worker.session.dispatch import DefinitelyNotDone
from service.worker.session.media_calls import MediaCalls, UploadTimedOut
from zap.v1 import media_pb2, message_pb2
from zap.worker.v1 import calls_pb2


class Library:
    """Stores what lies at an address, raises or hangs."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.kinds: list[MediaKind] = []
        self.ended: list[str] = []
        self.returned = threading.Semaphore(0)

    def store(self, address: int, size: int, kind: MediaKind) -> UploadResponse:
        self.goes_on.wait()
        self.kinds.append(kind)
        data = ctypes.string_at(address, size)
        self.returned.release()
        if self.error is not None:
            raise self.error
        return UploadResponse(
            url="https://elsewhere.example/",
            DirectPath="/v/1.enc?oh=1",
            Handle="",
            MediaKey=b"k" * 32,
            FileEncSHA256=b"e" * 32,
            FileSHA256=hashlib.sha256(data).digest(),
            FileLength=len(data),
        )


@pytest.fixture
def library() -> Iterator[Library]:
    library = Library()
    yield library
    library.goes_on.set()


@pytest.fixture
def calls(library: Library) -> MediaCalls:
    return MediaCalls(library.store, library.ended.append)


def attached(data: bytes, *, seal: bool = True) -> io.FileIO:
    """A file as it comes from the node: another descriptor of the same memory."""
    with SealedFile() as file:
        file.write(data)
        if seal:
            file.seal()
        return io.FileIO(os.dup(file.descriptor))


def request(size: int, timeout: float = 10) -> calls_pb2.Upload:
    asked = calls_pb2.Upload(kind=media_pb2.MEDIA_KIND_VIDEO, size=size)
    asked.timeout.FromNanoseconds(int(timeout * 1e9))
    return asked


def test_the_library_reads_the_node_s_memory(calls: MediaCalls, library: Library) -> None:
    data = bytes(number % 251 for number in range(100_000))
    result = calls.upload(request(len(data)), file := attached(data))
    assert (result.sha256, result.size) == (hashlib.sha256(data).digest(), len(data))
    assert (result.direct_path, result.media_key, result.encrypted_sha256) == ("/v/1.enc?oh=1", b"k" * 32, b"e" * 32)
    assert library.kinds == [MediaKind.VIDEO]
    assert file.closed


def test_a_file_that_could_change_is_refused(calls: MediaCalls, library: Library) -> None:
    for size, file in ((3, attached(b"abc", seal=False)), (4, attached(b"abc")), (3, None)):
        with pytest.raises(DefinitelyNotDone):
            calls.upload(request(size), file)
        assert file is None or file.closed
    assert library.kinds == []


def test_the_library_s_error_is_that_of_the_call(calls: MediaCalls, library: Library) -> None:
    library.error = RuntimeError("upload failed with status code 413")
    with pytest.raises(RuntimeError, match="413"):
        calls.upload(request(3), attached(b"abc"))
    assert library.ended == []


def test_lost_threads_end_the_session_when_they_are_too_many(calls: MediaCalls, library: Library) -> None:
    library.goes_on.clear()
    for lost in range(1, media_calls.MOST_LOST_THREADS + 1):
        assert library.ended == []
        with pytest.raises(UploadTimedOut, match=r"within 0\.01 s"):
            calls.upload(request(3, 0.01), attached(b"abc"))
        assert len(calls._lost) == lost
    assert library.ended == ["4 uploads, of 12 bytes together, do not come to their end"]


def test_a_thread_that_returns_late_is_no_longer_lost(calls: MediaCalls, library: Library) -> None:
    for _ in range(media_calls.MOST_LOST_THREADS):
        library.goes_on.clear()
        with pytest.raises(UploadTimedOut):
            calls.upload(request(3, 0.01), attached(b"abc"))
        assert len(calls._lost) == 1
        library.goes_on.set()
        for thread in threading.enumerate():
            if thread.name == "upload":
                thread.join(10)
        assert calls._lost == {}
    assert library.ended == []


def test_a_lost_thread_with_a_large_file_is_too_many(
    calls: MediaCalls, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_calls, "MOST_LOST_BYTES", 1000)
    library.goes_on.clear()
    with pytest.raises(UploadTimedOut):
        calls.upload(request(1000, 0.01), attached(bytes(1000)))
    assert len(library.ended) == 1


def in_message(data: bytes) -> message_pb2.SendRequest:
    inline = message_pb2.MediaFile.Inline(data=data, mime_type="audio/ogg")
    audio = message_pb2.Audio(file=message_pb2.MediaFile(inline=inline), seconds=3)
    return message_pb2.SendRequest(audio=audio)


def test_a_file_in_a_message_is_replaced_by_its_reference(calls: MediaCalls, library: Library) -> None:
    data = b"OggS\x00\x02" + bytes(22) + b"OpusHead\x01"
    message = in_message(data)
    calls.store_inline(message)
    media = read_reference(message.audio.file.reference)
    assert (media.kind, media.sha256, media.size) == (MediaKind.AUDIO, hashlib.sha256(data).digest(), len(data))
    assert (media.mime_type, media.is_opus, message.audio.seconds) == ("audio/ogg", True, 3)
    assert library.kinds == [MediaKind.AUDIO]
    for other in (message_pb2.SendRequest(text=message_pb2.Text(body="hi")), message, message_pb2.EditRequest()):
        calls.store_inline(other)
    assert len(library.kinds) == 1


def test_a_message_whose_file_is_not_stored_is_certainly_not_sent(
    calls: MediaCalls, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.error = RuntimeError("upload failed with status code 413")
    with pytest.raises(DefinitelyNotDone, match="413"):
        calls.store_inline(in_message(b"x"))
    library.error = None
    library.goes_on.clear()
    monkeypatch.setattr(media_calls, "_INLINE_TIMEOUT_S", 0.01)
    with pytest.raises(DefinitelyNotDone, match=r"within 0\.01 s"):
        calls.store_inline(in_message(b"x"))
