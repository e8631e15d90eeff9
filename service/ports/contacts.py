"""Declares the store of the people that sessions know."""

from collections.abc import Sequence
from typing import Protocol

from service.domain.contacts import Contact, ContactFilter, PersonAddress


class ContactStore(Protocol):
    """Reads what the library has stored of people, for one caller.

    Works whether or not the session is connected. Each method raises NotFound (SESSION_NOT_FOUND), and Unavailable if
    Postgres cannot be reached.
    """

    async def addresses(self, session_id: str, jids: Sequence[str]) -> Sequence[PersonAddress]:
        """Return the addresses of JIDs without device, one for each, as far as any session has learned them."""

    async def get(self, session_id: str, jid: str) -> Contact:
        """Return what the session knows of a person. Raises NotFound (CONTACT_NOT_FOUND) if it knows no name."""

    async def list(self, session_id: str, chosen: ContactFilter, after: str, limit: int) -> Sequence[Contact]:
        """Return at most `limit` contacts whose address.jid is greater than `after`, in order."""
