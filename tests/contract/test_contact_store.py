"""service.ports.ContactStore: what its fake does, Postgres does."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from service.domain.caller import ANONYMOUS
from service.domain.contacts import Contact, ContactFilter, PersonAddress
from service.domain.errors import NotFound
from service.ports.contacts import ContactStore
from service.ports.sessions import NewSession
from service.store.contacts import PostgresContacts
from tests.fakes.contact_store import FakeContactStore
from tests.fakes.session_store import FakeSessionStore
from tests.integration.test_store import JID, Store, store

__all__ = ["store"]
EVERYTHING = ContactFilter()
# As the library makes them.
TABLES = """
    CREATE TABLE whatsmeow_contacts (
        our_jid TEXT, their_jid TEXT, first_name TEXT, full_name TEXT, push_name TEXT, business_name TEXT,
        redacted_phone TEXT, PRIMARY KEY (our_jid, their_jid)
    );
    CREATE TABLE whatsmeow_lid_map (lid TEXT PRIMARY KEY, pn TEXT UNIQUE NOT NULL);
"""
#: By JID: full name, first name, push name, business name.
ROWS = {
    "4915100000002@s.whatsapp.net": ("Bob Builder", "Bob", "", ""),
    "22222@lid": ("", "", "bobby", ""),
    "33333@lid": ("", "", "Clara_%", ""),
    "4915100000004@s.whatsapp.net": ("", "", "old name", "Doe Ltd"),
    "44444@lid": ("", "", "Doe", ""),
    "4915100000005@s.whatsapp.net": ("", "", "", ""),
    "12036@g.us": ("", "", "a group", ""),
}
NUMBERS = {"22222": "4915100000002", "44444": "4915100000004", "66666": "4915100000006"}
BOB = Contact(PersonAddress("22222@lid", "+4915100000002", "22222@lid"), "Bob Builder", "Bob", "bobby", "")
CLARA = Contact(PersonAddress("33333@lid", "", "33333@lid"), "", "", "Clara_%", "")
DOE = Contact(PersonAddress("44444@lid", "+4915100000004", "44444@lid"), "", "", "Doe", "Doe Ltd")
EVE = Contact(PersonAddress("4915100000009@s.whatsapp.net", "+4915100000009"), "Eve", "", "", "")


@pytest.fixture(params=["fake", "Postgres"])
async def contacts(request: pytest.FixtureRequest, store: Store) -> AsyncIterator[ContactStore]:
    """A store in which session anna knows some people, and session ben knows Eve."""
    rows = {("anna", jid): names for jid, names in ROWS.items()}
    rows["ben", EVE.address.jid] = ("Eve", "", "", "")
    if request.param == "fake":
        sessions = FakeSessionStore()
        fake = FakeContactStore(sessions)
        for session_id in ("anna", "ben"):
            await sessions.create(NewSession(session_id, "", "", {}, "", ""))
        keys = ("full_name", "first_name", "push_name", "business_name")
        fake.rows = {where: dict(zip(keys, names, strict=True)) for where, names in rows.items()}
        fake.numbers = NUMBERS
        yield fake
    else:
        await store.execute(TABLES)
        devices = {"anna": JID, "ben": JID.replace(":3@", ":4@")}
        for session_id, jid in devices.items():
            await store.create(session_id)
            await store.execute("UPDATE zap.session SET device_jid = $2 WHERE session_id = $1", session_id, jid)
        for (session_id, their_jid), names in rows.items():
            insert = """
                INSERT INTO whatsmeow_contacts (our_jid, their_jid, full_name, first_name, push_name, business_name)
                VALUES ($1, $2, $3, $4, $5, nullif($6, ''))
            """
            await store.execute(insert, devices[session_id], their_jid, *names)
        for lid, number in NUMBERS.items():
            await store.execute("INSERT INTO whatsmeow_lid_map (lid, pn) VALUES ($1, $2)", lid, number)
        yield PostgresContacts(ANONYMOUS, store.database)


async def test_a_person_with_two_rows_is_one_contact_and_the_name_by_lid_wins(contacts: ContactStore) -> None:
    assert await contacts.list("anna", EVERYTHING, "", 10) == [BOB, CLARA, DOE]


async def test_a_session_has_the_contacts_of_its_own_device(contacts: ContactStore) -> None:
    assert await contacts.list("ben", EVERYTHING, "", 10) == [EVE]
    with pytest.raises(NotFound):
        await contacts.get("ben", BOB.address.jid)


async def test_contacts_come_page_by_page(contacts: ContactStore) -> None:
    assert await contacts.list("anna", EVERYTHING, "", 2) == [BOB, CLARA]
    assert await contacts.list("anna", EVERYTHING, CLARA.address.jid, 2) == [DOE]
    assert await contacts.list("anna", EVERYTHING, DOE.address.jid, 2) == []


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (ContactFilter("BUILD"), [BOB]),
        (ContactFilter("bobby"), [BOB]),
        (ContactFilter("+49151"), [BOB, DOE]),
        (ContactFilter("doe ltd"), [DOE]),
        (ContactFilter("_%"), [CLARA]),
        (ContactFilter("%"), [CLARA]),
        (ContactFilter("BuilderBob"), []),
        (ContactFilter(is_saved=True), [BOB]),
        (ContactFilter("doe", is_saved=True), []),
    ],
)
async def test_contacts_are_filtered(contacts: ContactStore, chosen: ContactFilter, found: list[Contact]) -> None:
    assert await contacts.list("anna", chosen, "", 10) == found


@pytest.mark.parametrize("jid", ["22222@lid", "4915100000002@s.whatsapp.net"])
async def test_a_person_is_found_by_either_address(contacts: ContactStore, jid: str) -> None:
    assert await contacts.get("anna", jid) == BOB


async def test_a_person_whose_number_is_unknown_is_found(contacts: ContactStore) -> None:
    assert await contacts.get("anna", "33333@lid") == CLARA


@pytest.mark.parametrize("jid", ["4915100000005@s.whatsapp.net", "4915100000007@s.whatsapp.net", "77777@lid"])
async def test_a_person_without_a_name_is_no_contact(contacts: ContactStore, jid: str) -> None:
    with pytest.raises(NotFound) as error:
        await contacts.get("anna", jid)
    assert error.value.reason == "CONTACT_NOT_FOUND"


async def test_addresses_are_completed_in_both_directions(contacts: ContactStore) -> None:
    asked = ["66666@lid", "4915100000002@s.whatsapp.net", "77777@lid", "4915100000007@s.whatsapp.net", "12036@g.us"]
    assert await contacts.addresses("anna", asked) == [
        PersonAddress("66666@lid", "+4915100000006", "66666@lid"),
        BOB.address,
        PersonAddress("77777@lid", "", "77777@lid"),
        PersonAddress("4915100000007@s.whatsapp.net", "+4915100000007"),
        PersonAddress("12036@g.us"),
    ]


async def test_an_unknown_session_is_not_found(contacts: ContactStore) -> None:
    calls = (
        contacts.list("carl", EVERYTHING, "", 1),
        contacts.get("carl", "22222@lid"),
        contacts.addresses("carl", []),
    )
    for call in calls:
        with pytest.raises(NotFound) as error:
            await call
        assert error.value.reason == "SESSION_NOT_FOUND"


async def test_before_the_library_has_made_its_tables_no_person_is_known(store: Store) -> None:
    await store.create("anna")
    people = PostgresContacts(ANONYMOUS, store.database)
    assert await people.list("anna", EVERYTHING, "", 10) == []
    assert await people.addresses("anna", ["22222@lid"]) == [replace(BOB.address, phone="")]
    with pytest.raises(NotFound):
        await people.get("anna", "22222@lid")
