"""The messages that contents with files become."""

from datetime import UTC, datetime
from typing import Any

import pytest
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

from service.domain.media import MediaKind, StoredMedia
from service.media.reference import write_reference
from service.worker.outbound.contents import CONTENTS
from service.worker.outbound.media import MEDIA_CONTENTS
from service.worker.session.dispatch import DefinitelyNotDone
from zap.v1 import message_pb2 as pb

TIME = datetime(2030, 1, 31, 12, tzinfo=UTC)
JPEG = b"\xff\xd8\xffsmall"
FIELDS: dict[str, Any] = {
    "URL": "https://mmg.whatsapp.net/v/1.enc?oh=1",
    "directPath": "/v/1.enc?oh=1",
    "mediaKey": b"k" * 32,
    "fileEncSHA256": b"e" * 32,
    "fileSHA256": b"s" * 32,
    "fileLength": 1234,
    "mediaKeyTimestamp": int(TIME.timestamp()),
}


def file(kind: MediaKind, mime_type: str, **shown: bool) -> pb.MediaFile:
    media = StoredMedia(kind, "/v/1.enc?oh=1", b"k" * 32, b"e" * 32, b"s" * 32, 1234, mime_type, TIME, **shown)
    return pb.MediaFile(reference=write_reference(media))


def built(content: Any, context: ContextInfo | None = None) -> Message:
    return CONTENTS[type(content)](content, context)


def test_an_image() -> None:
    image = pb.Image(file=file(MediaKind.IMAGE, "image/jpeg"), caption="hi", width=2, height=3, thumbnail=JPEG)
    context = ContextInfo(stanzaID="A")
    expected = ImageMessage(
        mimetype="image/jpeg", caption="hi", width=2, height=3, JPEGThumbnail=JPEG, contextInfo=context, **FIELDS
    )
    assert built(image, context) == Message(imageMessage=expected)


def test_a_video_a_gif_and_a_video_note() -> None:
    mp4 = file(MediaKind.VIDEO, "video/mp4")
    plain = VideoMessage(mimetype="video/mp4", caption="hi", seconds=9, **FIELDS)
    assert built(pb.Video(file=mp4, caption="hi", seconds=9)) == Message(videoMessage=plain)
    gif = VideoMessage(mimetype="video/mp4", gifPlayback=True, **FIELDS)
    assert built(pb.Video(file=mp4, is_gif=True)) == Message(videoMessage=gif)
    note = VideoMessage(mimetype="video/mp4", **FIELDS)
    assert built(pb.Video(file=mp4, is_video_note=True)) == Message(ptvMessage=note)


def test_audio_and_a_voice_note() -> None:
    mp3 = pb.Audio(file=file(MediaKind.AUDIO, "audio/mpeg"), seconds=9)
    assert built(mp3) == Message(audioMessage=AudioMessage(mimetype="audio/mpeg", seconds=9, PTT=False, **FIELDS))
    note = pb.Audio(file=file(MediaKind.AUDIO, "audio/ogg", is_opus=True), is_voice_note=True, waveform=bytes(64))
    expected = AudioMessage(mimetype="audio/ogg; codecs=opus", PTT=True, waveform=bytes(64), **FIELDS)
    assert built(note) == Message(audioMessage=expected)


def test_a_document_is_wrapped_if_it_has_a_caption() -> None:
    pdf = file(MediaKind.DOCUMENT, "application/pdf")
    plain = DocumentMessage(mimetype="application/pdf", fileName="a.pdf", title="a.pdf", pageCount=7, **FIELDS)
    assert built(pb.Document(file=pdf, file_name="a.pdf", page_count=7)) == Message(documentMessage=plain)
    plain.caption = "hi"
    wrapped = FutureProofMessage(message=Message(documentMessage=plain))
    captioned = pb.Document(file=pdf, file_name="a.pdf", page_count=7, caption="hi")
    assert built(captioned) == Message(documentWithCaptionMessage=wrapped)


@pytest.mark.parametrize("animated", [True, False])
def test_a_sticker_says_whether_it_is_animated(animated: bool) -> None:
    sticker = pb.Sticker(file=file(MediaKind.STICKER, "image/webp", is_animated=animated), width=512, height=512)
    expected = StickerMessage(mimetype="image/webp", width=512, height=512, isAnimated=animated, **FIELDS)
    assert built(sticker) == Message(stickerMessage=expected)


@pytest.mark.parametrize("kind", MEDIA_CONTENTS)
def test_a_message_with_an_unreadable_reference_is_not_sent(kind: Any) -> None:
    with pytest.raises(DefinitelyNotDone, match="reference"):
        built(kind(file=pb.MediaFile(reference=b"x")))
