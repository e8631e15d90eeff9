"""Calls any method of neonize's client with arguments from JSON, and shows results and events as JSON.

Arguments: a text with an @ is an address; {"plain": …} is the value itself, {"data": base64} is bytes,
{"enum": "ParticipantChange.ADD"} is a member of neonize's enumerations, {"message": "GroupParent", "fields": {…}}
is a message of neonize. Lists are converted item by item. Results: messages as JSON objects of the fields that are set.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from neonize.client import NewClient
from neonize.events import (
    BlocklistEv,
    CallOfferEv,
    CallOfferNoticeEv,
    CallTerminateEv,
    ChatPresenceEv,
    GroupInfoEv,
    NewsletterJoinEv,
    NewsletterLeaveEv,
    NewsletterMuteChangeEv,
    PictureEv,
    PresenceEv,
)
from neonize.proto import Neonize_pb2
from neonize.utils import build_jid, enum

#: Events that a test sees as JSON, and what they are called there.
SHOWN_EVENTS = {
    BlocklistEv: "blocklist",
    CallOfferEv: "call-offer",
    CallOfferNoticeEv: "call-offer-notice",
    CallTerminateEv: "call-terminate",
    ChatPresenceEv: "chat-presence",
    GroupInfoEv: "group-change",
    NewsletterJoinEv: "newsletter-joined",
    NewsletterLeaveEv: "newsletter-left",
    NewsletterMuteChangeEv: "newsletter-muted",
    PictureEv: "picture",
    PresenceEv: "presence",
}


def carry_out(client: NewClient, method: str, arguments: list[object]) -> dict[str, object]:
    """Call a method. Return {"result"} or {"error"}."""
    try:
        return {"result": _result(getattr(client, method)(*map(_argument, arguments)))}
    except Exception as error:  # noqa: BLE001  (whatever it is, the test wants to hear of it)
        return {"error": f"{type(error).__name__}: {error}"}


def shown(message: Message) -> dict[str, Any]:
    """Return a message as JSON, with the names of the fields as they are, and numbers as numbers."""
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found


def _argument(value: Any) -> object:  # noqa: PLR0911 - one for each kind of argument
    match value:
        case str() if "@" in value:
            user, _, server = value.partition("@")
            return build_jid(user, server)
        case list():
            return [_argument(item) for item in value]
        case {"plain": plain}:
            return plain
        case {"data": str(data)}:
            return base64.b64decode(data)
        case {"enum": str(name)}:
            kind, _, member = name.partition(".")
            return getattr(enum, kind)[member]
        case {"message": str(name), "fields": dict(fields)}:
            return ParseDict(fields, getattr(Neonize_pb2, name)())
        case _:
            return value


def _result(value: Any) -> object:
    if isinstance(value, Message):
        return shown(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_result(item) for item in value]
    return value
