"""Builds the library's message from a content that a caller sends, by the content's type."""

from collections.abc import Callable
from typing import Any

from google.protobuf import any_pb2, message
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from service.worker.session.dispatch import unpack
from zap.v1 import message_pb2


def build(content: any_pb2.Any, secret: bytes) -> Message:
    """Return the message to send, with its secret. Raise DefinitelyNotDone if its content is of no known type."""
    unpacked = unpack(content, _BUILDERS)
    built = _BUILDERS[type(unpacked)](unpacked)
    if secret:
        built.messageContextInfo.messageSecret = secret
    return built


def _text(text: message_pb2.Text) -> Message:
    # Do not let neonize build the message from the text: it would fetch every link in it (docs/neonize.md).
    return Message(conversation=text.body)


_BUILDERS: dict[type[message.Message], Callable[[Any], Message]] = {
    message_pb2.Text: _text,
}
