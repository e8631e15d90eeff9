"""What people write: texts, polls, and what goes with them. WhatsApp's bodies in, zap.v1's out."""

from typing import Any

from service.worker.inbound.content.limits import ADDRESS, BODY, PICTURE
from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb


def conversation(body: str | bytes, reading: Reading) -> pb.TextContent:
    """A plain text."""
    return pb.TextContent(body=reading.bounds.text(body, BODY))


def extended_text(body: Any, reading: Reading) -> pb.TextContent:
    """A text with a preview of a link, a reply, or a status."""
    bounds = reading.bounds
    return pb.TextContent(
        body=bounds.text(body.text, BODY),
        link=bounds.text(body.matchedText, ADDRESS),
        title=bounds.text(body.title),
        description=bounds.text(body.description, BODY),
        thumbnail=bounds.data(body.JPEGThumbnail, PICTURE),
        background_color=body.backgroundArgb,
    )


def disappearing_timer(body: Any, _: Reading) -> pb.DisappearingTimerContent:
    """A change of how long the chat's messages stay."""
    return pb.DisappearingTimerContent(seconds=body.ephemeralExpiration)


def poll(body: Any, reading: Reading) -> pb.PollContent:
    """A question with answers. Its secret, by which votes are encrypted, is not told."""
    bounds = reading.bounds
    return pb.PollContent(
        question=bounds.text(body.name, BODY),
        options=[bounds.text(option.optionName) for option in bounds.items(body.options)],
        most_choices=body.selectableOptionsCount,
    )


def album(body: Any, _: Reading) -> pb.AlbumContent:
    """How many media follow."""
    return pb.AlbumContent(images=body.expectedImageCount, videos=body.expectedVideoCount)
