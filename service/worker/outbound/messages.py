"""Builds the message that a request of MessageService sends, by the type of the request.

neonize's own builders are not used: they fetch links and files, write names raw into vCards, and take LIDs of the
account for other people (docs/neonize.md).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import message
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import (
    FutureProofMessage,
    Message,
    MessageContextInfo,
    PinInChatMessage,
    ProtocolMessage,
    ReactionMessage,
)

from service.worker.outbound.contents import CONTENTS, text_message
from service.worker.outbound.references import Addresses, context_of, key_of
from zap.v1 import message_pb2 as pb


def build(content: message.Message, to: str, secret: bytes, addresses: Addresses) -> Message:
    """Return the message to send to a JID for a request, one of BUILDERS, whose references name chat and message.

    `secret`: the messageSecret, 32 bytes. A poll needs it for its votes. Every message carries it, because it tells
    later whether the library had stored the message in order to send it.
    """
    built = BUILDERS[type(content)](content, to, addresses)
    if secret:
        built.messageContextInfo.messageSecret = secret
    return built


def typing_seconds(content: message.Message) -> float:
    """Return for how long the recipient is shown that the account is typing."""
    return content.typing_for.ToTimedelta().total_seconds() if isinstance(content, pb.SendRequest) else 0.0


def _send(request: pb.SendRequest, to: str, addresses: Addresses) -> Message:
    if request.HasField("reaction"):
        key = key_of(request.reaction.target, addresses)
        return Message(
            reactionMessage=ReactionMessage(key=key, text=request.reaction.emoji, senderTimestampMS=_now_ms())
        )
    content = getattr(request, request.WhichOneof("content") or "")
    return CONTENTS[type(content)](content, context_of(request, to, addresses))


def _edit(request: pb.EditRequest, _: str, addresses: Addresses) -> Message:
    # Only in this wrapping the library recognises an edit.
    edit = ProtocolMessage(
        key=key_of(request.target, addresses),
        type=ProtocolMessage.MESSAGE_EDIT,
        editedMessage=text_message(request.text, None),
        timestampMS=_now_ms(),
    )
    return Message(editedMessage=FutureProofMessage(message=Message(protocolMessage=edit)))


def _revoke(request: pb.RevokeRequest, _: str, addresses: Addresses) -> Message:
    key = key_of(request.target, addresses)
    return Message(protocolMessage=ProtocolMessage(key=key, type=ProtocolMessage.REVOKE))


def _pin(request: pb.PinInChatRequest, _: str, addresses: Addresses) -> Message:
    is_pin = request.HasField("duration")
    kind = PinInChatMessage.PIN_FOR_ALL if is_pin else PinInChatMessage.UNPIN_FOR_ALL
    pin = PinInChatMessage(key=key_of(request.target, addresses), type=kind, senderTimestampMS=_now_ms())
    info = MessageContextInfo(messageAddOnDurationInSecs=request.duration.seconds) if is_pin else None
    return Message(pinInChatMessage=pin, messageContextInfo=info)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


BUILDERS: Mapping[type[message.Message], Callable[[Any, str, Addresses], Message]] = {
    pb.SendRequest: _send,
    pb.EditRequest: _edit,
    pb.RevokeRequest: _revoke,
    pb.PinInChatRequest: _pin,
}
"""Functions that build the message of a request to a JID."""
