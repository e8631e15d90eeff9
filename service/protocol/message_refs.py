"""Resolve references to messages, and check that what is asked of them is possible. Every error names its field."""

from collections.abc import Mapping

from service.domain.records import MessageKind, OutboundMessage
from service.protocol.parsing import refuse
from zap.v1 import message_pb2 as pb


def resolve(ref: pb.MessageRef, field: str, sent: Mapping[str, OutboundMessage], to: str = "") -> pb.MessageRef:
    """Return a reference by WhatsApp's id, with its chat and, of another author's message, with its sender.

    `sent`: the messages of the session by request_id. `to`: the chat of a reference that names none; empty: it must.
    """
    if ref.request_id:
        _check_names_nothing_else(ref, field)
        message = sent[ref.request_id]
        if message.kind is not MessageKind.MESSAGE:
            problem = f"names a message of kind {message.kind.value}; name the message that it is about"
            raise refuse(f"{field}.request_id", problem)
        # An earlier release did not store the chat.
        return pb.MessageRef(message_id=message.message_id, chat=message.chat or message.to, from_me=True)
    if not ref.message_id:
        raise refuse(field, "must have a request_id or a message_id")
    chat = ref.chat or to
    if not chat:
        raise refuse(f"{field}.chat", "must name the chat of the message")
    sender = "" if ref.from_me else _sender(ref, field, chat)
    return pb.MessageRef(message_id=ref.message_id, chat=chat, from_me=ref.from_me, sender=sender)


def check_is_own(ref: pb.MessageRef, field: str, problem: str) -> None:
    """Refuse a message that the account did not write."""
    if not ref.from_me:
        raise refuse(field, problem)


def check_chat(ref: pb.MessageRef, field: str, to: str) -> None:
    """Refuse a message of another chat than the recipient's."""
    if not may_be_same(ref.chat, to):
        raise refuse(field, "must be the recipient of the request")


def is_group(jid: str) -> bool:
    """Return whether a JID is that of a group."""
    return jid.endswith("@g.us")


def may_be_same(one: str, other: str) -> bool:
    """Return whether two JIDs may be of one person or group: a LID and a phone number can be."""
    return one == other or (not is_group(one) and not is_group(other) and _server(one) != _server(other))


def _sender(ref: pb.MessageRef, field: str, chat: str) -> str:
    if is_group(chat):
        if not ref.sender:
            raise refuse(f"{field}.sender", "must name the author of a message in a group, unless from_me is set")
        return ref.sender
    if ref.sender and not may_be_same(ref.sender, chat):
        raise refuse(f"{field}.sender", "must be the chat, or empty, outside of a group")
    return chat


def _check_names_nothing_else(ref: pb.MessageRef, field: str) -> None:
    for given, _ in ref.ListFields():
        if given.name != "request_id":
            raise refuse(f"{field}.{given.name}", "must be empty beside request_id, which names the message")


def _server(jid: str) -> str:
    return jid.partition("@")[2]
