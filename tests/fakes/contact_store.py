"""service.ports.ContactStore in memory; tests/contract/test_contact_store.py holds that it behaves as Postgres does."""

from collections.abc import Sequence

from service.domain.contacts import Contact, ContactFilter, PersonAddress, address_of
from service.domain.errors import NotFound
from tests.fakes.session_store import FakeSessionStore


class FakeContactStore:
    """The contacts of all sessions, each a row of the library's table, and its map of LIDs and numbers."""

    def __init__(self, sessions: FakeSessionStore) -> None:
        self._sessions = sessions
        self.rows: dict[tuple[str, str], dict[str, str]] = {}
        """Names by session_id and JID: full_name, first_name, push_name, business_name."""
        self.numbers: dict[str, str] = {}
        """Numbers by LID, without servers."""

    async def addresses(self, session_id: str, jids: Sequence[str]) -> Sequence[PersonAddress]:
        await self._sessions.get(session_id)
        return [self._address(jid) for jid in jids]

    async def get(self, session_id: str, jid: str) -> Contact:
        await self._sessions.get(session_id)
        address = self._address(jid)
        for contact in self._contacts(session_id):
            if contact.address == address:
                return contact
        raise NotFound("no name", reason="CONTACT_NOT_FOUND", metadata={"session_id": session_id})

    async def list(self, session_id: str, chosen: ContactFilter, after: str, limit: int) -> Sequence[Contact]:
        await self._sessions.get(session_id)
        found = [
            contact
            for contact in sorted(self._contacts(session_id), key=lambda contact: contact.address.jid)
            if contact.address.jid > after and _is_chosen(contact, chosen)
        ]
        return found[:limit]

    def _contacts(self, session_id: str) -> Sequence[Contact]:
        found: dict[PersonAddress, dict[str, str]] = {}
        # What is known by LID comes last, and wins.
        for (owner, jid), names in sorted(self.rows.items(), key=lambda row: row[0][1].endswith("@lid")):
            if owner == session_id and jid.endswith(("@lid", "@s.whatsapp.net")):
                found.setdefault(self._address(jid), {}).update({key: name for key, name in names.items() if name})
        return [
            Contact(
                address,
                full_name=names.get("full_name", ""),
                first_name=names.get("first_name", ""),
                push_name=names.get("push_name", ""),
                business_name=names.get("business_name", ""),
            )
            for address, names in found.items()
            if names
        ]

    def _address(self, jid: str) -> PersonAddress:
        return address_of(jid, {number: lid for lid, number in self.numbers.items()}, self.numbers)


def _is_chosen(contact: Contact, chosen: ContactFilter) -> bool:
    if chosen.is_saved and not (contact.full_name or contact.first_name):
        return False
    texts = (contact.full_name, contact.first_name, contact.push_name, contact.business_name, contact.address.phone)
    return any(chosen.search.lower() in text.lower() for text in texts)
