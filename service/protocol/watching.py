"""Convert requests and responses of EventService.Watch."""

from contextlib import suppress

from service.domain.caller import Caller
from service.domain.watch import Delivered, EventFilter, LoggedEvent, StartPosition, Step
from service.protocol.timestamps import timestamp
from zap.v1 import event_pb2
from zap.v1 import watch_pb2 as pb

_TYPE = "TYPE_"


def wanted_of(request: pb.WatchRequest, caller: Caller) -> EventFilter:
    """Return the filter of a caller's request."""
    return EventFilter(
        caller=caller,
        session_ids=frozenset(request.session_ids),
        user_id=request.user_id,
        labels=dict(request.labels),
        types=frozenset(event_pb2.Event.Type.Name(number).removeprefix(_TYPE) for number in request.types),
    )


def start_of(request: pb.WatchRequest) -> StartPosition:
    """Return the start position of a request."""
    return StartPosition(token=request.resume_token, is_oldest=request.from_start)


def step_message(step: Step) -> pb.WatchResponse:
    """Return a delivery or a bookmark as a response."""
    if isinstance(step, Delivered):
        return pb.WatchResponse(resume_token=step.token, event=logged_message(step.event, step.token))
    bookmark = pb.Bookmark(is_caught_up=step.is_caught_up, read_time=timestamp(step.read_time))
    return pb.WatchResponse(resume_token=step.token, bookmark=bookmark)


def logged_message(event: LoggedEvent, resume_token: str) -> event_pb2.Event:
    """Return an event as consumers get it. Unknown fields of a newer release stay: a consumer may know them."""
    message = event_pb2.Event.FromString(event.payload)
    message.id = str(event.position.id)
    message.session_id = event.session_id
    message.sequence = event.sequence
    message.resume_token = resume_token
    message.time.FromDatetime(event.time)
    # A type that only a newer release knows stays unset.
    with suppress(ValueError):
        message.type = event_pb2.Event.Type.Value(_TYPE + event.type)
    return message
