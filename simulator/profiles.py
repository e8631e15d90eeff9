"""Holds what a person shows to others: about, picture, verified name; and the person's settings of who sees it."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field

#: The values that each privacy setting may have. The first is the default.
PRIVACY: dict[str, tuple[str, ...]] = {
    "readreceipts": ("all", "none"),
    "profile": ("all", "contacts", "contact_blacklist", "none"),
    "status": ("all", "contacts", "contact_blacklist", "none"),
    "last": ("all", "contacts", "contact_blacklist", "none"),
    "groupadd": ("all", "contacts", "contact_blacklist", "none"),
    "calladd": ("all", "known"),
    "online": ("all", "match_last_seen"),
    "messages": ("all", "contacts"),
    "defense": ("off", "on_standard"),
    "stickers": ("contacts", "contact_allowlist", "none"),
}
_JPEG = b"\xff\xd8\xff"


class NotAPicture(ValueError):
    """The bytes are not a JPEG."""


@dataclass(frozen=True)
class Picture:
    """A profile picture of a person or a group."""

    id: str
    data: bytes
    #: the address below a media host
    direct_path: str

    @classmethod
    def of(cls, data: bytes) -> Picture:
        """Return a new picture. Raise NotAPicture."""
        if not data.startswith(_JPEG):
            raise NotAPicture("a profile picture is a JPEG")
        number = str(secrets.randbelow(9 * 10**9) + 10**9)
        path = f"/v/t61.24694-24/{number}_{secrets.randbelow(10**15):015}_n.jpg?ccb=11-4&oh={secrets.token_hex(16)}"
        return cls(number, data, path)

    @property
    def hash(self) -> str:
        """SHA-256 of the bytes in base64."""
        return base64.b64encode(hashlib.sha256(self.data).digest()).decode()


@dataclass
class Profile:
    """The profile and the settings of one person."""

    about: str = "Hey there! I am using WhatsApp."
    about_set_at: int = field(default_factory=lambda: int(time.time()))
    picture: Picture | None = None
    #: the name that WhatsApp has verified, of a business only
    business_name: str = ""
    privacy: dict[str, str] = field(default_factory=lambda: {name: values[0] for name, values in PRIVACY.items()})
    #: phone numbers in the person's address book
    contacts: set[str] = field(default_factory=set)
    #: hidden ids of the people that the person has blocked, oldest first
    blocked: dict[str, None] = field(default_factory=dict)
    #: seconds after which messages of new chats disappear; 0 is never
    disappearing: int = 0
    disappearing_set_at: int = 0
    #: code of the link that leads to this person
    contact_code: str = field(default_factory=lambda: secrets.token_hex(8).upper())

    def shows(self, setting: str, pn: str, lid: str) -> bool:
        """Return whether another person, given by phone number and hidden id, may see what a setting covers."""
        if lid in self.blocked:
            return False
        value = self.privacy[setting]
        return value == "all" or (value in ("contacts", "contact_blacklist") and pn in self.contacts)

    def set_about(self, text: str) -> None:
        """Set the about text."""
        self.about, self.about_set_at = text, int(time.time())

    def set_disappearing(self, seconds: int) -> None:
        """Set after how many seconds messages of new chats disappear."""
        self.disappearing, self.disappearing_set_at = seconds, int(time.time())
