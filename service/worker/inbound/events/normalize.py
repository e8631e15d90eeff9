"""What all of these have in common: the server may leave anything out, and may say anything."""

from collections.abc import Mapping
from typing import Any

from service.worker.addresses import person_to_text
from service.worker.inbound import dedup_keys
from service.worker.inbound.content.limits import past_moment, readable
from service.worker.inbound.translate import build_inbound_frame
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

WORD = 100
"""Characters of a word of WhatsApp's own: a reason, a kind."""
NAME, TEXT = 1_024, 65_536
"""Characters of a name, and of a text, that somebody wrote."""


def told_once(seconds: int, kind: "event_pb2.Event.Type.ValueType", **payload: Any) -> frames_pb2.Frame:
    """What WhatsApp says of this moment, in seconds since 1970, and may say again until it is acknowledged."""
    if (then := past_moment(seconds)) is None:
        return told_each_time(kind, **payload)
    frame = build_inbound_frame(then, kind, **payload)
    frame.origin = dedup_keys.of_notification(seconds, frame.event)
    return frame


def told_each_time(kind: "event_pb2.Event.Type.ValueType", **payload: Any) -> frames_pb2.Frame:
    """What WhatsApp says without a moment of its own: the same can happen twice, and a repetition is told again."""
    frame = build_inbound_frame(None, kind, **payload)
    frame.origin = dedup_keys.of_itself()
    return frame


def person(jid: Any) -> str:
    """A person's or a group's address, without the device; empty for one that is not there."""
    return words(person_to_text(jid), NAME)


def words(value: str | bytes, most: int = WORD) -> str:
    """A text, valid and not longer than so many characters."""
    return readable(value)[:most]


def attributes(node: Any) -> Mapping[str, str]:
    """The attributes of a stanza's element, as text."""
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
