"""Of what strangers write nothing is logged: every field of a message that they can write a text into says so."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.telemetry.redaction import PERSONAL, loggable
from zap.v1 import (
    call_pb2,
    contact_pb2,
    event_pb2,
    group_pb2,
    group_service_pb2,
    history_pb2,
    identity_pb2,
    options_pb2,
    picture_pb2,
    presence_pb2,
    profile_pb2,
)
from zap.worker.v1 import contacts_pb2

#: Ids and words of WhatsApp's, without which a log explains nothing; and names of fields.
READABLE = {"message_id", "field", "other_fields", "stanza_type", "media_type", "category", "edit_attribute"}
READABLE |= {"unavailable_request_id", "message_ids", "call_id", "end_reason", "join_reason", "reason", "others"}
READABLE |= {"picture_id"}


def texts_of(of: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    """Every field below a message that holds text or bytes."""
    for field in of.fields:
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from texts_of(field.message_type, seen | {field.message_type.full_name})
        elif field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            yield field


@pytest.mark.parametrize(
    "payload",
    [
        event_pb2.MessageReceived.DESCRIPTOR,
        event_pb2.MessageRawPart.DESCRIPTOR,
        event_pb2.MessageUnreadable.DESCRIPTOR,
        event_pb2.Receipt.DESCRIPTOR,
        event_pb2.ResendFailed.DESCRIPTOR,
        call_pb2.Call.DESCRIPTOR,
        group_pb2.GroupChanged.DESCRIPTOR,
        history_pb2.HistorySync.DESCRIPTOR,
        identity_pb2.IdentityChanged.DESCRIPTOR,
        picture_pb2.PictureChanged.DESCRIPTOR,
        presence_pb2.ChatPresence.DESCRIPTOR,
        presence_pb2.Presence.DESCRIPTOR,
        contact_pb2.Contact.DESCRIPTOR,
        contact_pb2.CheckNumbersResponse.DESCRIPTOR,
        contact_pb2.About.DESCRIPTOR,
        contact_pb2.Picture.DESCRIPTOR,
        profile_pb2.Profile.DESCRIPTOR,
        group_service_pb2.Group.DESCRIPTOR,
        group_service_pb2.UpdateParticipantsResponse.DESCRIPTOR,
        group_service_pb2.JoinGroupResponse.DESCRIPTOR,
        group_service_pb2.ListJoinRequestsResponse.DESCRIPTOR,
        group_service_pb2.ListSubGroupsResponse.DESCRIPTOR,
        contacts_pb2.CheckedNumbers.DESCRIPTOR,
        contacts_pb2.OwnProfile.DESCRIPTOR,
        contacts_pb2.FoundPicture.DESCRIPTOR,
        contacts_pb2.BlockList.DESCRIPTOR,
    ],
    ids=lambda payload: str(payload.name),
)
def test_what_strangers_write_is_marked(payload: Descriptor) -> None:
    unmarked = {field.name for field in texts_of(payload) if not field.GetOptions().Extensions[options_pb2.sensitivity]}
    assert unmarked <= READABLE


def test_a_message_is_logged_without_what_is_in_it() -> None:
    received = event_pb2.MessageReceived(message_id="3EB0", chat="49170@s.whatsapp.net", text="hello", raw=b"hello")
    received.content.text.body = "hello"
    received.context.mentions.append("1@lid")
    shown = loggable(received)
    assert shown["message_id"] == "3EB0"
    assert shown["content"] == {"text": {"body": PERSONAL}}
    assert shown["context"] == {"mentions": PERSONAL}
    assert "hello" not in str(shown)
