"""Convert the requests and responses of MediaService, and check media of messages, as far as the schema cannot."""

from google.protobuf.message import Message

from service.domain.errors import FieldViolation, InvalidArgument
from service.domain.media import MediaKind, NewUpload, StoredMedia, is_path_at_host
from service.media.reference import UnreadableReference, kind_of, read_reference, write_reference
from service.media.sniffing import HEAD_BYTES, mismatch, sniff
from service.protocol.timestamps import timestamp
from zap.v1 import content_pb2, message_pb2
from zap.v1 import media_pb2 as pb

_KEY_BYTES = _HASH_BYTES = 32
_LOUDEST = 100
_JPEG = b"\xff\xd8\xff"
_KINDS = {
    content_pb2.Content.KIND_IMAGE: MediaKind.IMAGE,
    content_pb2.Content.KIND_VIDEO: MediaKind.VIDEO,
    content_pb2.Content.KIND_AUDIO: MediaKind.AUDIO,
    content_pb2.Content.KIND_DOCUMENT: MediaKind.DOCUMENT,
    content_pb2.Content.KIND_STICKER: MediaKind.STICKER,
}


def new_upload(request: pb.UploadRequest) -> NewUpload:
    """Return what the first message of an upload announces."""
    if not request.HasField("header"):
        raise InvalidArgument([FieldViolation("header", "must be in the first message of the stream")])
    header = request.header
    return NewUpload(header.session_id, kind_of(header.kind), header.mime_type, header.size)


def chunk_of(request: pb.UploadRequest) -> bytes:
    """Return the bytes of a further message of an upload."""
    if not request.HasField("chunk"):
        raise InvalidArgument([FieldViolation("chunk", "must be in each message of the stream after the first")])
    return request.chunk


def upload_response(stored: StoredMedia) -> pb.UploadResponse:
    """Return the response for a file that was stored."""
    return pb.UploadResponse(
        reference=write_reference(stored),
        sha256=stored.sha256,
        size=stored.size or 0,
        mime_type=stored.mime_type,
        create_time=timestamp(stored.create_time),
    )


def media_to_download(request: pb.DownloadRequest) -> StoredMedia:
    """Return the file that Download requests."""
    field = request.WhichOneof("file")
    if field == "reference":
        media = media_of_reference(request.reference, "reference")
    else:
        media = _media_of_content(request.content)
    problems = _problems(media)
    if problems:
        prefix = "content.media." if field == "content" else "reference: "
        raise InvalidArgument([FieldViolation(f"{prefix}{name}", wrong) for name, wrong in problems])
    return media


def media_of_reference(reference: bytes, field: str) -> StoredMedia:
    """Return the file of a reference, which is in this field of a request."""
    try:
        return read_reference(reference)
    except UnreadableReference as error:
        raise InvalidArgument([FieldViolation(field, str(error))], reason="REFERENCE_INVALID") from error


def check_media(field: str, content: Message) -> None:
    """Check what a request sends in one of its fields image, video, audio, document and sticker."""
    file: message_pb2.MediaFile = getattr(content, "file")  # noqa: B009 - of five messages
    kind = MediaKind[field.upper()]
    if file.HasField("inline"):
        head = file.inline.data[:HEAD_BYTES]
        if wrong := mismatch(kind, file.inline.mime_type, head):
            raise _refuse(f"{field}.file.inline.mime_type", wrong, "MEDIA_TYPE_MISMATCH")
        found = sniff(head)
        is_opus = found is not None and found.is_opus
    else:
        media = media_of_reference(file.reference, f"{field}.file.reference")
        if media.kind is not kind:
            raise _refuse(f"{field}.file.reference", f"is of a file that was uploaded as {media.kind.name}")
        is_opus = media.is_opus
    if isinstance(content, message_pb2.Audio) and content.is_voice_note and not is_opus:
        raise _refuse(f"{field}.is_voice_note", "needs a file of Ogg with Opus", "MEDIA_TYPE_MISMATCH")
    if isinstance(content, message_pb2.Video) and content.is_video_note and (content.is_gif or content.caption):
        raise _refuse(f"{field}.is_video_note", "is possible neither with is_gif nor with a caption")
    if isinstance(content, message_pb2.Audio) and any(value > _LOUDEST for value in content.waveform):
        raise _refuse(f"{field}.waveform", f"must have values from 0 to {_LOUDEST}")
    thumbnail: bytes = getattr(content, "thumbnail", b"")
    if thumbnail and not thumbnail.startswith(_JPEG):
        raise _refuse(f"{field}.thumbnail", "must be a JPEG")


def _refuse(field: str, description: str, reason: str | None = None) -> InvalidArgument:
    return InvalidArgument([FieldViolation(field, description)], reason=reason)


def _media_of_content(content: content_pb2.Content) -> StoredMedia:
    kind = _KINDS.get(content.kind)
    if kind is None or not content.HasField("media"):
        raise InvalidArgument([FieldViolation("content", "must be an image, video, audio, document or sticker")])
    media = content.media
    return StoredMedia(
        kind=kind,
        direct_path=media.direct_path,
        media_key=media.media_key,
        encrypted_sha256=media.encrypted_sha256,
        sha256=media.sha256,
        # A sender that states no size leaves it 0.
        size=media.size or None,
        mime_type=media.mime_type,
    )


def _problems(media: StoredMedia) -> list[tuple[str, str]]:
    """Return what is wrong, by field. A sender can write anything into these fields."""
    found = []
    if not is_path_at_host(media.direct_path):
        found.append(("direct_path", "must be a path that begins with /, of at most 4,096 printable ASCII characters"))
    if len(media.media_key) != _KEY_BYTES:
        found.append(("media_key", f"must have {_KEY_BYTES} bytes"))
    if len(media.encrypted_sha256) != _HASH_BYTES:
        found.append(("encrypted_sha256", f"must have {_HASH_BYTES} bytes"))
    if len(media.sha256) not in (0, _HASH_BYTES):
        found.append(("sha256", f"must have {_HASH_BYTES} bytes, or none"))
    return found
