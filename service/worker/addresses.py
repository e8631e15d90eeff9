"""Converts JIDs between neonize's protobufs and WhatsApp's notation (`number:device@server`)."""

import re
from typing import Any

from neonize.proto.Neonize_pb2 import JID

from service.worker.inbound.content.limits import readable

_JID = re.compile(r"(?P<user>[^@:]*?)(?:\.(?P<agent>\d+))?(?::(?P<device>\d+))?@(?P<server>[a-z][a-z0-9.-]*)")


class NoAddress(ValueError):
    """A text that is not a JID."""


def to_text(jid: Any) -> str:
    """Return a JID in WhatsApp's notation, an empty text if it is absent."""
    if not jid.User:
        return readable(jid.Server)
    agent = f".{jid.RawAgent}" if jid.RawAgent else ""
    device = f":{jid.Device}" if jid.Device else ""
    return f"{readable(jid.User)}{agent}{device}@{readable(jid.Server)}"


def person_to_text(jid: Any) -> str:
    """Return a JID without its device, which names the person rather than one of their devices."""
    return f"{readable(jid.User)}@{readable(jid.Server)}" if jid.User else readable(jid.Server)


def from_text(text: str) -> Any:
    """Return the protobuf of a JID. Raise NoAddress, whose message does not contain the text, if it is invalid."""
    match = _JID.fullmatch(text)
    if match is None:
        raise NoAddress("not a JID: expected number@server or number:device@server")
    return JID(
        User=match["user"],
        Server=match["server"],
        RawAgent=int(match["agent"] or 0),
        Device=int(match["device"] or 0),
        Integrator=0,
        IsEmpty=False,
    )
