"""Define the people that a session knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NUMBER_SERVER, LID_SERVER = "s.whatsapp.net", "lid"


@dataclass(frozen=True)
class PersonAddress:
    """Holds the addresses of a person, or the one of a group. Empty: unknown."""

    jid: str = field(repr=False)
    """The LID if it is known, otherwise the number's JID."""
    phone: str = field(default="", repr=False)
    """Digits with a leading +."""
    lid: str = field(default="", repr=False)
    """The LID as a JID."""


@dataclass(frozen=True)
class Contact:
    """Holds the names by which a session knows a person. Any may be empty, but not all."""

    address: PersonAddress
    full_name: str = field(repr=False)
    first_name: str = field(repr=False)
    push_name: str = field(repr=False)
    business_name: str = field(repr=False)


@dataclass(frozen=True)
class ContactFilter:
    """Selects contacts to list; empty values do not filter."""

    search: str = field(default="", repr=False)
    """A part of a name or of the phone number, in upper or lower case."""
    is_saved: bool = False
    """Only people in the account's address book."""


def address_of(jid: str, lids: Mapping[str, str], numbers: Mapping[str, str]) -> PersonAddress:
    """Return the addresses of a JID without device.

    `lids`: LID by number, `numbers`: number by LID, without servers.
    """
    user, _, server = jid.partition("@")
    if server == LID_SERVER:
        number = numbers.get(user, "")
        return PersonAddress(jid, f"+{number}" if number else "", jid)
    if server == NUMBER_SERVER:
        lid = lids.get(user, "")
        return person_address(user, lid)
    return PersonAddress(jid)


def person_address(number: str, lid: str) -> PersonAddress:
    """Return the addresses of a person by number and LID, without servers. One of them may be empty."""
    lid_jid = f"{lid}@{LID_SERVER}" if lid else ""
    return PersonAddress(lid_jid or f"{number}@{NUMBER_SERVER}", f"+{number}" if number else "", lid_jid)
