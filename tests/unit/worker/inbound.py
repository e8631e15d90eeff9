"""Inbound messages as the library hands them over, for tests of what is told of them."""

import datetime
import time
from typing import Any

from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e

from service.worker.addresses import from_text
from service.worker.inbound import messages
from zap.v1 import event_pb2
from zap.worker.v1 import inbound_pb2

CHAT, SENDER, OTHER = "49170@s.whatsapp.net", "111:2@lid", "49170:2@s.whatsapp.net"
GROUP, ME = "123-456@g.us", "49151@s.whatsapp.net"
SENT = datetime.datetime(2023, 11, 23, 12, 0, 1, 500_000, tzinfo=datetime.UTC)
#: Of a day, so that every process of a test run names its tests alike.
TEN_YEARS_AHEAD = (int(time.time()) // 86_400 + 10 * 365) * 86_400


def nobody() -> neonize.JID:
    return neonize.JID(User="", Server="", RawAgent=0, Device=0, Integrator=0, IsEmpty=True)


def source(**changes: Any) -> neonize.MessageSource:
    fields = {
        "Chat": from_text(CHAT),
        "Sender": from_text(SENDER),
        "SenderAlt": from_text(OTHER),
        "RecipientAlt": nobody(),
        "BroadcastListOwner": nobody(),
        "IsFromMe": False,
        "IsGroup": False,
    }
    return neonize.MessageSource(**(fields | changes))


def info(message_source: neonize.MessageSource | None = None, **changes: Any) -> neonize.MessageInfo:
    fields = {
        "ID": "3EB0",
        "ServerID": 0,
        "Type": "text",
        "Pushname": "Friend",
        "Timestamp": int(SENT.timestamp() * 1000),
        "Category": "",
        "Multicast": False,
        "MediaType": "",
        "Edit": "",
    }
    return neonize.MessageInfo(MessageSource=message_source or source(), **(fields | changes))


def event(
    content: e2e.Message | bytes, about: neonize.MessageInfo | None = None, **fields: Any
) -> inbound_pb2.InboundMessage:
    """As neonize serialises it."""
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return inbound_pb2.InboundMessage(info=(about or info()).SerializeToString(), message=data, raw=data, **fields)


def told(
    content: e2e.Message | bytes, about: neonize.MessageInfo | None = None, **fields: Any
) -> event_pb2.MessageReceived:
    """The one event that is told of it."""
    (frame,) = messages.frames(event(content, about, **fields))
    assert frame.event.type == event_pb2.Event.TYPE_MESSAGE_RECEIVED
    return frame.event.message_received
