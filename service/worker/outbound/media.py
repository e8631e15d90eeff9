"""Builds the message of each content of SendRequest with a file, which is stored at WhatsApp already."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import message
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import (
    AudioMessage,
    ContextInfo,
    DocumentMessage,
    FutureProofMessage,
    ImageMessage,
    Message,
    StickerMessage,
    VideoMessage,
)

from service.domain.media import StoredMedia
from service.media.reference import UnreadableReference, read_reference
from service.worker.session.dispatch import DefinitelyNotDone
from zap.v1 import message_pb2 as pb

_HOST = "https://mmg.whatsapp.net"
_VOICE_NOTE = "audio/ogg; codecs=opus"
"""The only type with which WhatsApp's applications show a voice note."""


def _image(image: pb.Image, context: ContextInfo | None) -> Message:
    built = ImageMessage(
        caption=image.caption or None,
        width=image.width or None,
        height=image.height or None,
        JPEGThumbnail=image.thumbnail or None,
        contextInfo=context,
        **_fields(_media(image.file)),
    )
    return Message(imageMessage=built)


def _video(video: pb.Video, context: ContextInfo | None) -> Message:
    built = VideoMessage(
        caption=video.caption or None,
        width=video.width or None,
        height=video.height or None,
        seconds=video.seconds or None,
        JPEGThumbnail=video.thumbnail or None,
        gifPlayback=video.is_gif or None,
        contextInfo=context,
        **_fields(_media(video.file)),
    )
    return Message(ptvMessage=built) if video.is_video_note else Message(videoMessage=built)


def _audio(audio: pb.Audio, context: ContextInfo | None) -> Message:
    fields = _fields(_media(audio.file))
    if audio.is_voice_note:
        fields["mimetype"] = _VOICE_NOTE
    built = AudioMessage(
        seconds=audio.seconds or None,
        PTT=audio.is_voice_note,
        waveform=audio.waveform or None,
        contextInfo=context,
        **fields,
    )
    return Message(audioMessage=built)


def _document(document: pb.Document, context: ContextInfo | None) -> Message:
    built = DocumentMessage(
        fileName=document.file_name,
        title=document.file_name,
        caption=document.caption or None,
        pageCount=document.page_count or None,
        JPEGThumbnail=document.thumbnail or None,
        contextInfo=context,
        **_fields(_media(document.file)),
    )
    plain = Message(documentMessage=built)
    # WhatsApp's applications show the caption of a document only in this wrapping.
    return Message(documentWithCaptionMessage=FutureProofMessage(message=plain)) if document.caption else plain


def _sticker(sticker: pb.Sticker, context: ContextInfo | None) -> Message:
    media = _media(sticker.file)
    built = StickerMessage(
        width=sticker.width or None,
        height=sticker.height or None,
        isAnimated=media.is_animated,
        contextInfo=context,
        **_fields(media),
    )
    return Message(stickerMessage=built)


def _media(file: pb.MediaFile) -> StoredMedia:
    try:
        return read_reference(file.reference)
    except UnreadableReference as error:
        raise DefinitelyNotDone(f"the reference {error}") from error


def _fields(media: StoredMedia) -> dict[str, Any]:
    """Return the fields that all messages with a file have."""
    fields: dict[str, Any] = {
        "URL": f"{_HOST}{media.direct_path}",
        "directPath": media.direct_path,
        "mediaKey": media.media_key,
        "fileEncSHA256": media.encrypted_sha256,
        "fileSHA256": media.sha256,
        "fileLength": media.size,
        "mimetype": media.mime_type,
    }
    if media.create_time is not None:
        fields["mediaKeyTimestamp"] = int(media.create_time.timestamp())
    return fields


MEDIA_CONTENTS: Mapping[type[message.Message], Callable[[Any, ContextInfo | None], Message]] = {
    pb.Image: _image,
    pb.Video: _video,
    pb.Audio: _audio,
    pb.Document: _document,
    pb.Sticker: _sticker,
}
"""Functions that build the message of a content with its context, by the content's type."""
