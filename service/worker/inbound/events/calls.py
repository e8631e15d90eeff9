"""Converts calls to the account."""

from typing import Any

from service.worker.inbound.events.normalize import attributes, dated_frame, person, words
from zap.v1 import call_pb2, event_pb2
from zap.worker.v1 import frames_pb2


def offered(event: Any) -> frames_pb2.Frame | None:
    """Convert an incoming call; return None if it has no id."""
    group = attributes(event.data).get("group-jid", "")
    call = _call(event, call_pb2.Call.PHASE_OFFERED)
    call.platform = words(event.callRemoteMeta.remotePlatform)
    call.group, call.is_group = group, bool(group)
    call.is_video = any(part.Tag == "video" for part in event.data.Nodes)
    return _frame(event, call)


def announced(event: Any) -> frames_pb2.Frame | None:
    """Convert the notice of an incoming group call, which lacks what a device needs to accept it."""
    call = _call(event, call_pb2.Call.PHASE_OFFERED)
    call.group = attributes(event.data).get("group-jid", "") or call.group
    call.is_group = event.type == "group" or bool(call.group)
    call.is_video = event.media == "video"
    return _frame(event, call)


def accepted(event: Any) -> frames_pb2.Frame | None:
    """Convert the acceptance of a call."""
    call = _call(event, call_pb2.Call.PHASE_ACCEPTED)
    call.platform = words(event.callRemoteMeta.remotePlatform)
    return _frame(event, call)


def ended(event: Any) -> frames_pb2.Frame | None:
    """Convert the end of a call."""
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
        # `from` is a keyword, so it cannot be assigned directly.
        setattr(call, "from", sender)
    return call


def _frame(event: Any, call: call_pb2.Call) -> frames_pb2.Frame | None:
    """Return None for a call without an id, which no consumer could attribute."""
    if not call.call_id:
        return None
    return dated_frame(event.basicCallMeta.timestamp, event_pb2.Event.TYPE_CALL, call=call)
