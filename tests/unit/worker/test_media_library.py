import ctypes
from typing import Any

import pytest
from neonize.exc import UploadError
from neonize.proto.Neonize_pb2 import UploadResponse, UploadReturnFunction

from service.domain.call_failures import CallFailure, call_error
from service.domain.errors import ZapError
from service.domain.masking import masked
from service.domain.media import MediaKind
from service.worker import errors
from service.worker.library import media_library

LOST = 'failed to execute request: Post "https://mmg.whatsapp.net/mms/image/c2hvcnQ=?auth=AbCdEf&token=c2hvcnQ=": EOF'


class Bytes(ctypes.Structure):
    _fields_ = (("ptr", ctypes.c_void_p), ("size", ctypes.c_size_t))


UPLOAD = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)


class Free:
    """FreeBytesStruct, which counts its calls."""

    argtypes = (ctypes.POINTER(Bytes),)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, pointer: Any) -> None:
        self.count += 1


def test_credentials_in_the_library_s_words_do_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = UploadReturnFunction(Error=LOST, UploadResponse=empty()).SerializeToString()
    buffer = ctypes.create_string_buffer(answer, len(answer))
    result = Bytes(ctypes.addressof(buffer), len(answer))
    free = Free()
    asked: list[tuple[Any, ...]] = []

    def upload(*arguments: Any) -> Any:
        asked.append(arguments)
        return ctypes.pointer(result)

    monkeypatch.setattr(media_library, "_PROTOTYPE", lambda _: upload)
    library = type("Library", (), {"FreeBytesStruct": free})()
    with pytest.raises(UploadError) as failure:
        media_library.upload(library, b"shop", 4096, 3, MediaKind.STICKER)
    assert str(failure.value) == "failed to execute request: Post <address>: EOF"
    assert asked == [(b"shop", 4096, 3, 0)]
    assert free.count == 1


def empty() -> UploadResponse:
    return UploadResponse(
        url="", DirectPath="", Handle="", MediaKey=b"", FileEncSHA256=b"", FileSHA256=b"", FileLength=0
    )


def test_credentials_in_a_log_line_are_masked() -> None:
    assert "AbCdEf" not in masked(LOST)


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("upload failed with status code 429", CallFailure.RATE_LIMITED),
        ("upload failed with status code 413", CallFailure.UPLOAD_REFUSED),
        ("upload failed with status code 401", CallFailure.UPLOAD_FAILED),
        ("upload failed with status code 500", CallFailure.UPLOAD_FAILED),
        ("failed to execute request: Post <address>: EOF", CallFailure.UPLOAD_FAILED),
        ("failed to refresh media connections: info query timed out", CallFailure.UPLOAD_FAILED),
        ("failed to refresh media connections: websocket not connected", CallFailure.SESSION_NOT_CONNECTED),
        ("client is nil", CallFailure.SESSION_NOT_CONNECTED),
    ],
)
def test_each_failure_of_an_upload_has_its_kind(words: str, failure: CallFailure) -> None:
    assert errors.call_failure(words) is failure
    assert isinstance(call_error(failure, "shop", words), ZapError)
