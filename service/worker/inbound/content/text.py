"""Converts texts, polls, albums and disappearing timers."""

from typing import Any

from service.worker.inbound.content.limits import ADDRESS, BODY, PICTURE
from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb


def conversation(body: str | bytes, reading: Reading) -> pb.TextContent:
    """Convert a plain text."""
    return pb.TextContent(body=reading.bounds.text(body, BODY))


def extended_text(body: Any, reading: Reading) -> pb.TextContent:
    """Convert a text that has a link preview, quotes a message, or is a status."""
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
    """Convert a change of the chat's disappearing timer."""
    return pb.DisappearingTimerContent(seconds=body.ephemeralExpiration)


def poll(body: Any, reading: Reading) -> pb.PollContent:
    """Convert a poll, without the secret that encrypts its votes."""
    bounds = reading.bounds
    return pb.PollContent(
        question=bounds.text(body.name, BODY),
        options=[bounds.text(option.optionName) for option in bounds.items(body.options)],
        most_choices=body.selectableOptionsCount,
    )


def album(body: Any, _: Reading) -> pb.AlbumContent:
    """Convert the head of an album, which says how many media follow."""
    return pb.AlbumContent(images=body.expectedImageCount, videos=body.expectedVideoCount)
