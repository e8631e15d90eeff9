"""Converts images, videos, audio, documents and stickers to their location and keys. Nothing is downloaded."""

from typing import Any

from service.worker.inbound.content.limits import ADDRESS, BODY, PICTURE, Bounds, moment
from zap.v1 import content_pb2 as pb


def media(body: Any, bounds: Bounds) -> pb.MediaContent:
    """Convert any of WhatsApp's five messages with a file."""
    has = _Fields(body)
    return pb.MediaContent(
        mime_type=bounds.text(body.mimetype),
        size=body.fileLength,
        caption=bounds.text(has("caption", ""), BODY),
        sha256=bounds.data(body.fileSHA256),
        encrypted_sha256=bounds.data(body.fileEncSHA256),
        media_key=bounds.data(body.mediaKey),
        direct_path=bounds.text(body.directPath, ADDRESS),
        url=bounds.text(body.URL, ADDRESS),
        media_key_time=moment(body.mediaKeyTimestamp),
        width=has("width", 0),
        height=has("height", 0),
        seconds=has("seconds", 0),
        file_name=bounds.text(has("fileName", "")),
        title=bounds.text(has("title", "")),
        page_count=has("pageCount", 0),
        thumbnail=bounds.data(has("JPEGThumbnail", b"") or has("pngThumbnail", b""), PICTURE),
        is_voice_note=has("PTT", 0),
        waveform=bounds.data(has("waveform", b"")),
        is_gif=has("gifPlayback", 0),
        is_animated=has("isAnimated", 0),
        is_view_once=has("viewOnce", 0),
    )


def video_note(body: Any, bounds: Bounds) -> pb.MediaContent:
    """Convert a video note, which is shown round."""
    content = media(body, bounds)
    content.is_video_note = True
    return content


class _Fields:
    """Reads fields that not all of the five messages have."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._names = body.DESCRIPTOR.fields_by_name

    def __call__(self, name: str, default: Any) -> Any:
        return getattr(self._body, name) if name in self._names else default
