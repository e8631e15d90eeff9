"""JIDs: as neonize's protobufs and as WhatsApp writes them (`number:device@server`)."""

import re
from typing import Any

from neonize.proto.Neonize_pb2 import JID

from service.worker.inbound.content.limits import readable

_FORM = re.compile(r"(?P<user>[^@:]*?)(?:\.(?P<agent>\d+))?(?::(?P<device>\d+))?@(?P<server>[a-z][a-z0-9.-]*)")


class NoAddress(ValueError):
    """A text that is no JID."""


def to_text(jid: Any) -> str:
    """As WhatsApp writes it; empty for one that is not there."""
    if not jid.User:
        return readable(jid.Server)
    agent = f".{jid.RawAgent}" if jid.RawAgent else ""
    device = f":{jid.Device}" if jid.Device else ""
    return f"{readable(jid.User)}{agent}{device}@{readable(jid.Server)}"


def person_to_text(jid: Any) -> str:
    """The same without the device: the person, not one of his telephones."""
    return f"{readable(jid.User)}@{readable(jid.Server)}" if jid.User else readable(jid.Server)


def from_text(text: str) -> Any:
    """The protobuf of a JID. Raises NoAddress, without the text in its words."""
    match = _FORM.fullmatch(text)
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
