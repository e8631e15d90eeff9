"""What a request may send as media."""

from typing import Any

import pytest

from service.domain.errors import InvalidArgument
from service.domain.media import MediaKind, StoredMedia
from service.media.reference import write_reference
from service.protocol import sending
from service.protocol.payloads import message_of
from service.protocol.validation import violations_of
from zap.v1 import message_pb2 as pb

JPEG = b"\xff\xd8\xff\xe0" + bytes(100)
OGG = b"OggS\x00\x02" + bytes(22)
OPUS, VORBIS = OGG + b"OpusHead\x01", OGG + b"\x01vorbis"


def reference(kind: MediaKind, **shown: Any) -> pb.MediaFile:
    media = StoredMedia(kind, "/v/1?x", bytes(32), bytes(32), bytes(32), 9, "audio/ogg", **shown)
    return pb.MediaFile(reference=write_reference(media))


def inline(data: bytes, mime_type: str) -> pb.MediaFile:
    return pb.MediaFile(inline=pb.MediaFile.Inline(data=data, mime_type=mime_type))


def send(**content: Any) -> pb.SendRequest:
    return pb.SendRequest(session_id="a", to="123456@lid", request_id="r", **content)


IMAGE, MP4 = inline(JPEG, "image/jpeg"), inline(b"\x00\x00\x00\x20ftypisom", "video/mp4")


@pytest.mark.parametrize(
    "content",
    [
        {"image": pb.Image(file=IMAGE, caption="hi", thumbnail=JPEG)},
        {"image": pb.Image(file=reference(MediaKind.IMAGE))},
        {"video": pb.Video(file=MP4, is_gif=True, caption="hi")},
        {"video": pb.Video(file=MP4, is_video_note=True)},
        {"audio": pb.Audio(file=inline(OPUS, "audio/ogg; codecs=opus"), is_voice_note=True, waveform=bytes(64))},
        {"audio": pb.Audio(file=reference(MediaKind.AUDIO, is_opus=True), is_voice_note=True)},
        {"audio": pb.Audio(file=inline(VORBIS, "audio/ogg"))},
        {"document": pb.Document(file=inline(b"anything", "application/pdf"), file_name="a.pdf")},
        {"sticker": pb.Sticker(file=inline(b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"))},
    ],
)
def test_media_that_whatsapp_shows_are_passed_on(content: dict[str, Any]) -> None:
    request = send(**content)
    assert violations_of(request) == []
    passed = message_of(sending.new_message(request, {}).content, pb.SendRequest)
    assert passed == pb.SendRequest(**content)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"image": pb.Image(file=inline(JPEG, "image/png"))}, "image.file.inline.mime_type"),
        ({"image": pb.Image(file=inline(b"<html>", "image/jpeg"))}, "image.file.inline.mime_type"),
        ({"image": pb.Image(file=reference(MediaKind.DOCUMENT))}, "image.file.reference"),
        ({"image": pb.Image(file=pb.MediaFile(reference=b"x"))}, "image.file.reference"),
        ({"image": pb.Image(file=IMAGE, thumbnail=b"GIF89a")}, "image.thumbnail"),
        ({"video": pb.Video(file=MP4, is_video_note=True, is_gif=True)}, "video.is_video_note"),
        ({"video": pb.Video(file=MP4, is_video_note=True, caption="hi")}, "video.is_video_note"),
        ({"audio": pb.Audio(file=inline(VORBIS, "audio/ogg"), is_voice_note=True)}, "audio.is_voice_note"),
        ({"audio": pb.Audio(file=reference(MediaKind.AUDIO), is_voice_note=True)}, "audio.is_voice_note"),
        ({"audio": pb.Audio(file=inline(OPUS, "audio/ogg"), waveform=b"\x65")}, "audio.waveform"),
        ({"sticker": pb.Sticker(file=inline(JPEG, "image/jpeg"))}, "sticker.file.inline.mime_type"),
    ],
)
def test_media_that_whatsapp_would_not_show_are_refused(content: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sending.new_message(send(**content), {})
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"image": pb.Image()}, "image.file"),
        ({"image": pb.Image(file=pb.MediaFile())}, "image.file.file"),
        ({"image": pb.Image(file=inline(bytes(1_000_001), "image/jpeg"))}, "image.file.inline.data"),
        ({"image": pb.Image(file=inline(b"", "image/jpeg"))}, "image.file.inline.data"),
        ({"image": pb.Image(file=inline(JPEG, "jpeg"))}, "image.file.inline.mime_type"),
        ({"document": pb.Document(file=IMAGE)}, "document.file_name"),
        ({"document": pb.Document(file=IMAGE, file_name="../a")}, "document.file_name"),
        ({"document": pb.Document(file=IMAGE, file_name="a\nb")}, "document.file_name"),
    ],
)
def test_the_schema_refuses_what_is_no_file(content: dict[str, Any], field: str) -> None:
    assert [violation.field for violation in violations_of(send(**content))] == [field]
