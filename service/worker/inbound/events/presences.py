"""Who is there and who is writing: of the moment. What it is about, and how it is told."""

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

Momentary = tuple[Hashable, frames_pb2.Frame]
"""Who and where: a later one about the same says all that an earlier one did. And the frame."""


def presence(event: Any) -> Momentary:
    """Somebody opened WhatsApp, or left it."""
    who = person(event.From)
    last_seen = past_moment(event.LastSeen) if event.Unavailable else None
    told = presence_pb2.Presence(person=who, is_online=not event.Unavailable, last_seen_time=last_seen)
    return who, build_inbound_frame(None, event_pb2.Event.TYPE_PRESENCE, presence=told)


def chat_presence(event: Any) -> Momentary:
    """Somebody began to write in a chat, or stopped."""
    source = event.MessageSource
    told = presence_pb2.ChatPresence(
        chat=person(source.Chat),
        sender=person(source.Sender),
        sender_alternative=person(source.SenderAlt),
        is_group=source.IsGroup,
        activity=_ACTIVITIES.get((event.State, event.Media), presence_pb2.ChatPresence.ACTIVITY_PAUSED),
    )
    return (told.chat, told.sender), build_inbound_frame(None, event_pb2.Event.TYPE_CHAT_PRESENCE, chat_presence=told)
