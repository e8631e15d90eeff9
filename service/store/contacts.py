"""Reads the people that sessions know from the tables of the library.

They belong to whatsmeow, which may not have made them yet. Of its contacts those of the session's own device count. Its
map of numbers and LIDs has no device: what one session has learned, all sessions know.
"""

from collections.abc import Sequence

from service.domain.caller import Caller
from service.domain.contacts import (
    LID_SERVER,
    NUMBER_SERVER,
    Contact,
    ContactFilter,
    PersonAddress,
    address_of,
    person_address,
)
from service.domain.errors import NotFound, session_not_found
from service.store.database import Connection, Database, Record, strip_nul


class PostgresContacts:
    """Implements ports.contacts.ContactStore on Postgres, for one caller."""

    def __init__(self, caller: Caller, database: Database) -> None:
        self._caller = caller
        self._database = database

    async def addresses(self, session_id: str, jids: Sequence[str]) -> Sequence[PersonAddress]:
        """Return the addresses of JIDs, one for each."""
        async with self._database.autocommit() as connection:
            await _device_jid(connection, session_id)
            return await _addresses(connection, jids)

    async def get(self, session_id: str, jid: str) -> Contact:
        """Return what the session knows of a person. Raises NotFound."""
        async with self._database.autocommit() as connection:
            device_jid = await _device_jid(connection, session_id)
            (address,) = await _addresses(connection, [jid])
            row = None
            if await _is_there(connection):
                jids = [address.lid, f"{address.phone.removeprefix('+')}@{NUMBER_SERVER}"]
                row = await connection.row("get_contact", device_jid, jids)
        if row is None:
            raise NotFound(
                f"session {session_id!r} knows no name of this person; CheckNumbers says whether a number is on"
                " WhatsApp",
                reason="CONTACT_NOT_FOUND",
                metadata={"session_id": session_id},
            )
        return _contact(row, address)

    async def list(self, session_id: str, chosen: ContactFilter, after: str, limit: int) -> Sequence[Contact]:
        """Return at most `limit` contacts after a JID, in order."""
        search = strip_nul(chosen.search)
        async with self._database.autocommit() as connection:
            device_jid = await _device_jid(connection, session_id)
            if not await _is_there(connection):
                return []
            found = await connection.rows("list_contacts", device_jid, after, search, chosen.is_saved, limit)
        return [_contact(row, person_address(row["number"] or "", row["lid"] or "")) for row in found]


async def _device_jid(connection: Connection, session_id: str) -> str:
    """Return the JID of the session's device, an empty text if it is not paired. Raises NotFound."""
    row = await connection.row("get_device_jid", session_id)
    if row is None:
        raise session_not_found(session_id)
    return row["device_jid"] or ""


async def _is_there(connection: Connection) -> bool:
    return bool(await connection.value("has_contact_tables"))


async def _addresses(connection: Connection, jids: Sequence[str]) -> Sequence[PersonAddress]:
    if not await _is_there(connection):
        return [address_of(jid, {}, {}) for jid in jids]
    people = [jid.partition("@") for jid in jids]
    lids = [user for user, _, server in people if server == LID_SERVER]
    numbers = [user for user, _, server in people if server == NUMBER_SERVER]
    found = await connection.rows("resolve_lids", lids, numbers)
    lid_by_number = {row["number"]: row["lid"] for row in found}
    number_by_lid = {row["lid"]: row["number"] for row in found}
    return [address_of(jid, lid_by_number, number_by_lid) for jid in jids]


def _contact(row: Record, address: PersonAddress) -> Contact:
    return Contact(
        address,
        full_name=row["full_name"] or "",
        first_name=row["first_name"] or "",
        push_name=row["push_name"] or "",
        business_name=row["business_name"] or "",
    )
