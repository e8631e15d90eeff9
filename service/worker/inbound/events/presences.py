"""Converts presences and typing notices, which are ephemeral events."""

from collections.abc import Hashable
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.worker.inbound.content.limits import past_moment
from service.worker.inbound.events.normalize import person
from service.worker.inbound.translate import build_inbound_frame
from zap.v1 import event_pb2, presence_pb2
from zap.worker.v1 import frames_pb2

_ACTIVITIES = {
    (neonize.ChatPresence.COMPOSING, neonize.ChatPresence.TEXT): presence_pb2.ChatPresence.ACTIVITY_TYPING,
    (neonize.ChatPresence.COMPOSING, neonize.ChatPresence.AUDIO): presence_pb2.ChatPresence.ACTIVITY_RECORDING,
}

EphemeralEvent = tuple[Hashable, frames_pb2.Frame]
"""The subject and the frame. A later event replaces an earlier one about the same subject."""


def presence(event: Any) -> EphemeralEvent:
    """Convert a person's going online or offline."""
    subject = person(event.From)
    last_seen = past_moment(event.LastSeen) if event.Unavailable else None
    converted = presence_pb2.Presence(person=subject, is_online=not event.Unavailable, last_seen_time=last_seen)
    return subject, build_inbound_frame(None, event_pb2.Event.TYPE_PRESENCE, presence=converted)


def chat_presence(event: Any) -> EphemeralEvent:
    """Convert a notice that a person has begun or stopped to write in a chat."""
    source = event.MessageSource
    notice = presence_pb2.ChatPresence(
        chat=person(source.Chat),
        sender=person(source.Sender),
        sender_alternative=person(source.SenderAlt),
        is_group=source.IsGroup,
        activity=_ACTIVITIES.get((event.State, event.Media), presence_pb2.ChatPresence.ACTIVITY_PAUSED),
    )
    frame = build_inbound_frame(None, event_pb2.Event.TYPE_CHAT_PRESENCE, chat_presence=notice)
    return (notice.chat, notice.sender), frame
