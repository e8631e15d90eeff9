"""Calls to the account."""

from typing import Any

from service.worker.inbound.events.normalize import attributes, person, told_once, words
from zap.v1 import call_pb2, event_pb2
from zap.worker.v1 import frames_pb2


def offered(event: Any) -> frames_pb2.Frame | None:
    """It rings."""
    said = attributes(event.data)
    group = said.get("group-jid", "")
    call = _call(event, call_pb2.Call.PHASE_OFFERED)
    call.platform = words(event.callRemoteMeta.remotePlatform)
    call.group, call.is_group = group, bool(group)
    call.is_video = any(part.Tag == "video" for part in event.data.Nodes)
    return _frame(event, call)


def announced(event: Any) -> frames_pb2.Frame | None:
    """It rings in a group, whose calls come without all that a device needs to take them."""
    call = _call(event, call_pb2.Call.PHASE_OFFERED)
    call.group = attributes(event.data).get("group-jid", "") or call.group
    call.is_group = event.type == "group" or bool(call.group)
    call.is_video = event.media == "video"
    return _frame(event, call)


def accepted(event: Any) -> frames_pb2.Frame | None:
    """Somebody took it."""
    call = _call(event, call_pb2.Call.PHASE_ACCEPTED)
    call.platform = words(event.callRemoteMeta.remotePlatform)
    return _frame(event, call)


def ended(event: Any) -> frames_pb2.Frame | None:
    """It is over."""
    call = _call(event, call_pb2.Call.PHASE_ENDED)
    call.end_reason = words(event.reason)
    return _frame(event, call)


def _call(event: Any, phase: "call_pb2.Call.Phase.ValueType") -> call_pb2.Call:
    known = event.basicCallMeta
    call = call_pb2.Call(
        call_id=words(known.callID),
        phase=phase,
        caller=person(known.callCreator),
        caller_alternative=person(known.callCreatorAlt),
    )
    if (sender := person(getattr(known, "from"))).endswith("@g.us"):
        call.group = sender
    else:
        # `from` is a keyword, so it cannot be named otherwise.
        setattr(call, "from", sender)
    return call


def _frame(event: Any, call: call_pb2.Call) -> frames_pb2.Frame | None:
    """None without an id: nobody could tell what it is about."""
    if not call.call_id:
        return None
    return told_once(event.basicCallMeta.timestamp, event_pb2.Event.TYPE_CALL, call=call)
