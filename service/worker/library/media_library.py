"""Calls the library's Upload with the address of a file in memory, instead of a copy of its bytes."""

import ctypes
import re
from collections.abc import Mapping
from typing import Any

from neonize.exc import UploadError
from neonize.proto.Neonize_pb2 import UploadResponse, UploadReturnFunction

from service.domain.media import MediaKind

_TYPES: Mapping[MediaKind, int] = {
    MediaKind.IMAGE: 0,
    MediaKind.STICKER: 0,
    MediaKind.VIDEO: 1,
    MediaKind.AUDIO: 2,
    MediaKind.DOCUMENT: 3,
}
"""The numbers of neonize.utils.enum.MediaType. Any other number would abort the process."""
_ADDRESS = re.compile(r'"?https?://[^\s"]*"?')


class _Bytes(ctypes.Structure):
    """neonize._binder.Bytes."""

    _fields_ = (("ptr", ctypes.c_void_p), ("size", ctypes.c_size_t))


_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.POINTER(_Bytes), ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)


def upload_through(client: Any, address: int, size: int, kind: MediaKind) -> UploadResponse:
    """Store the bytes at this address at WhatsApp, through neonize's client.

    Takes as long as WhatsApp takes, without a limit. Raise UploadError.
    """
    # Private, but neonize's own method would copy the bytes.
    return upload(client._NewClient__client, client.uuid, address, size, kind)


def upload(library: Any, client_id: bytes, address: int, size: int, kind: MediaKind) -> UploadResponse:
    """Have the library encrypt and store `size` bytes. Raise UploadError with the library's words, without the address.

    The address in the words has WhatsApp's credentials for uploads. The library copies the bytes once, and encrypts the
    copy into another one.
    """
    result = _PROTOTYPE(("Upload", library))(client_id, address, size, _TYPES[kind])
    try:
        answer = UploadReturnFunction.FromString(ctypes.string_at(result.contents.ptr, result.contents.size))
    finally:
        library.FreeBytesStruct(ctypes.cast(result, library.FreeBytesStruct.argtypes[0]))
    if answer.Error:
        raise UploadError(_ADDRESS.sub("<address>", answer.Error))
    return answer.UploadResponse
