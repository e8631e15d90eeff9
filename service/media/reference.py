"""Writes and reads the references that Upload returns: a version, a checksum and a zap.node.v1.MediaReference. Pure.

A reference is complete in itself, so that any node of any later release can use it. It needs no signature: all that it
allows, a caller can do as well with the content of a message. The checksum finds a reference that was cut or mixed up.
"""

import datetime
import hashlib

from google.protobuf.message import DecodeError

from service.domain.media import MediaKind, StoredMedia
from zap.node.v1.media_pb2 import MediaReference
from zap.v1.media_pb2 import MediaKind as KindNumber

_VERSION = b"\x01"
_CHECKSUM_BYTES = 8


class UnreadableReference(Exception):
    """The bytes are no reference that this release can read; the message says why."""


def write_reference(media: StoredMedia) -> bytes:
    """Return the reference to a file."""
    message = MediaReference(
        kind=number_of(media.kind),
        direct_path=media.direct_path,
        media_key=media.media_key,
        encrypted_sha256=media.encrypted_sha256,
        sha256=media.sha256,
        size=media.size or 0,
        mime_type=media.mime_type,
        is_opus=media.is_opus,
        is_animated=media.is_animated,
    )
    if media.create_time is not None:
        message.create_time.FromDatetime(media.create_time)
    body = message.SerializeToString()
    return _VERSION + _checksum(body) + body


def read_reference(reference: bytes) -> StoredMedia:
    """Return the file of a reference. Raise UnreadableReference."""
    version, checksum, body = reference[:1], reference[1 : 1 + _CHECKSUM_BYTES], reference[1 + _CHECKSUM_BYTES :]
    if version != _VERSION:
        raise UnreadableReference("is not a reference that Upload returned, or one of a later release")
    if checksum != _checksum(body):
        raise UnreadableReference("is damaged; pass on the bytes that Upload returned")
    try:
        message = MediaReference.FromString(body)
        kind = kind_of(message.kind)
    except (DecodeError, ValueError) as error:
        raise UnreadableReference("is damaged; pass on the bytes that Upload returned") from error
    return StoredMedia(
        kind=kind,
        direct_path=message.direct_path,
        media_key=message.media_key,
        encrypted_sha256=message.encrypted_sha256,
        sha256=message.sha256,
        size=message.size,
        mime_type=message.mime_type,
        create_time=message.create_time.ToDatetime(tzinfo=datetime.UTC) if message.HasField("create_time") else None,
        is_opus=message.is_opus,
        is_animated=message.is_animated,
    )


def number_of(kind: MediaKind) -> KindNumber.ValueType:
    """Return the number of a kind in the protos."""
    return KindNumber.Value(f"MEDIA_KIND_{kind.name}")


def kind_of(number: int) -> MediaKind:
    """Return the kind of a number in the protos. Raise ValueError if it is unknown."""
    name = KindNumber.Name(KindNumber.ValueType(number)).removeprefix("MEDIA_KIND_")
    if name not in MediaKind.__members__:
        raise ValueError(f"{number} is no kind of media")
    return MediaKind[name]


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(_VERSION + body).digest()[:_CHECKSUM_BYTES]
