"""Contents to send, as the core passes them on."""

from google.protobuf.message import Message

from service.domain.records import TypedPayload
from zap.v1 import message_pb2


def payload(message: Message) -> TypedPayload:
    """Any message, opaque."""
    return TypedPayload(message.DESCRIPTOR.full_name, message.SerializeToString(deterministic=True))


def text_content(body: str) -> TypedPayload:
    """A plain text, as a session process gets it."""
    return payload(message_pb2.SendRequest(text=message_pb2.Text(body=body)))
