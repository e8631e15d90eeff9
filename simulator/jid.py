"""Parses and formats WhatsApp addresses."""

from __future__ import annotations

from dataclasses import dataclass

PN_SERVER = "s.whatsapp.net"
LID_SERVER = "lid"
GROUP_SERVER = "g.us"


@dataclass(frozen=True, slots=True)
class Jid:
    """An address: user, server and device number (0 is the phone, and the user as a whole)."""

    user: str
    server: str = PN_SERVER
    device: int = 0

    @classmethod
    def parse(cls, text: str) -> Jid:
        """Return the address in `user[:device]@server` or a bare server name."""
        local, at, server = text.rpartition("@")
        if not at:
            return cls("", text)
        user, colon, device = local.partition(":")
        if colon and not device.isdigit():
            raise ValueError(f"not a device number: {device!r} in {text!r}")
        return cls(user, server, int(device or 0))

    @property
    def bare(self) -> Jid:
        """Return the user's address, without a device."""
        return Jid(self.user, self.server)

    def __str__(self) -> str:
        if not self.user:
            return self.server
        device = f":{self.device}" if self.device else ""
        return f"{self.user}{device}@{self.server}"


#: The server itself. Clients ignore the server's stanzas unless they are `from` exactly this address.
SERVER = Jid("", PN_SERVER)
