"""Converts changes of profile pictures and security codes."""

from typing import Any

from service.worker.inbound.events.normalize import dated_frame, person
from zap.v1 import event_pb2, identity_pb2, picture_pb2
from zap.worker.v1 import frames_pb2


def picture_changed(event: Any) -> frames_pb2.Frame | None:
    """Convert a new picture of a person or a group; return None if neither is named."""
    changed = picture_pb2.PictureChanged(whose=person(event.JID), author=person(event.Author), is_removed=event.Remove)
    if not event.JID.User:
        return None
    return dated_frame(event.Timestamp, event_pb2.Event.TYPE_PICTURE_CHANGED, picture_changed=changed)


def identity_changed(event: Any) -> frames_pb2.Frame | None:
    """Convert a new security code of a person; return None if no person is named."""
    changed = identity_pb2.IdentityChanged(person=person(event.JID), is_implicit=event.Implicit)
    if not event.JID.User:
        return None
    return dated_frame(event.Timestamp, event_pb2.Event.TYPE_IDENTITY_CHANGED, identity_changed=changed)
