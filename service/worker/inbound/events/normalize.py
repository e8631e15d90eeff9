"""Builds frames of notifications, and bounds their fields: WhatsApp's server may omit any of them or send any value."""

from collections.abc import Mapping
from typing import Any

from service.worker.addresses import person_to_text
from service.worker.inbound import dedup_keys
from service.worker.inbound.content.limits import past_moment, readable
from service.worker.inbound.translate import build_inbound_frame
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

WORD = 100
"""Maximum characters of a word defined by WhatsApp, such as a reason or a kind."""
NAME, TEXT = 1_024, 65_536
"""Maximum characters of a name, and of a text, that a person wrote."""


def dated_frame(seconds: int, kind: "event_pb2.Event.Type.ValueType", **payload: Any) -> frames_pb2.Frame:
    """Build the frame of a notification with a time, in seconds since 1970, which WhatsApp may send several times."""
    if (then := past_moment(seconds)) is None:
        return undated_frame(kind, **payload)
    frame = build_inbound_frame(then, kind, **payload)
    frame.origin = dedup_keys.of_notification(seconds, frame.event)
    return frame


def undated_frame(kind: "event_pb2.Event.Type.ValueType", **payload: Any) -> frames_pb2.Frame:
    """Build the frame of a notification without a usable time. A repetition of it is logged as another event."""
    frame = build_inbound_frame(None, kind, **payload)
    frame.origin = dedup_keys.of_itself()
    return frame


def person(jid: Any) -> str:
    """Return the address of a person or a group, without the device; empty if it is absent."""
    return words(person_to_text(jid), NAME)


def words(value: str | bytes, most: int = WORD) -> str:
    """Return a valid text of at most `most` characters."""
    return readable(value)[:most]


def attributes(node: Any) -> Mapping[str, str]:
    """Return the attributes of a stanza's element as text."""
    return {words(attribute.name): _as_text(attribute) for attribute in node.Attrs}


def _as_text(attribute: Any) -> str:
    match attribute.WhichOneof("Value"):
        case None:
            return ""
        case "jid":
            return person(attribute.jid)
        case "text":
            return words(attribute.text, NAME)
        case kind:
            return str(getattr(attribute, kind))
