"""Contacts and profiles of the simulator as the real neonize sees them. One client makes all calls."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from simulator.binary_xml import node
from simulator.control import SimulatorControl
from simulator.process import SimulatorProcess
from tests.e2e.client_process import ClientProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(491530000001)


class Linked:
    """A neonize client, the person that it belongs to, and the simulator around it."""

    def __init__(self, control: SimulatorControl, client: ClientProcess, pn: str, jid: str) -> None:
        self.control = control
        self.client = client
        self.pn = pn
        self.jid = jid

    async def person(self, name: str = "Bob") -> str:
        """Return the phone number of a new person."""
        return (await self.control.create_phone(str(next(_numbers)), name)).pn

    async def lid(self, pn: str) -> str:
        """Return the user part of a person's hidden id."""
        return (await self.control.phone(pn)).lid.partition("@")[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Linked]:
    """A client that is linked to Alice and connected."""
    store: Path = tmp_path_factory.mktemp("client") / "client.db"
    async with SimulatorProcess() as simulator:
        control = simulator.control
        pn = (await control.create_phone(str(next(_numbers)), "Alice")).pn
        client = await ClientProcess.start(store, simulator.environment())
        link = await control.scan(pn, (await client.expect("qr"))["text"])
        assert link.jid is not None
        await client.expect("connected")
        yield Linked(control, client, pn, link.jid)
        await client.kill()


# --- who is on WhatsApp


async def test_tells_who_is_on_whatsapp(alice: Linked) -> None:
    bob, shop = await alice.person(), await alice.person("Shop")
    await alice.control.person(shop).set_business_name("Shop Ltd.")
    found = await alice.client.call("is_on_whatsapp", f"+{bob}", f"+{shop}", "+4900000000", "abc")
    assert [(it["Query"], it.get("IsIn", False)) for it in found] == [
        (f"+{bob}", True),
        (f"+{shop}", True),
        ("+4900000000", False),
        ("abc", False),
    ]
    assert [it["JID"]["User"] for it in found[:3]] == [await alice.lid(bob), await alice.lid(shop), "4900000000"]
    assert found[1]["VerifiedName"]["Details"]["verifiedName"] == "Shop Ltd."
    assert "VerifiedName" not in found[0]


async def test_tells_the_hidden_id_of_a_number(alice: Linked) -> None:
    bob = await alice.person()
    unknown = await alice.client.call("get_lid_from_pn", f"{bob}@s.whatsapp.net")
    assert unknown["IsEmpty"]
    await alice.client.call("is_on_whatsapp", f"+{bob}")
    lid = await alice.client.call("get_lid_from_pn", f"{bob}@s.whatsapp.net")
    assert lid["User"] == await alice.lid(bob)
    assert (await alice.client.call("get_pn_from_lid", f"{lid['User']}@lid"))["User"] == bob


async def test_shows_what_a_person_shows(alice: Linked) -> None:
    bob = await alice.person()
    await alice.control.person(bob).set_about("At the garden")
    (found,) = await alice.client.call("get_user_info", f"{bob}@s.whatsapp.net")
    info = found["UserInfo"]
    assert info["Status"] == "At the garden"
    assert [device["User"] for device in info["Devices"]] == [bob]
    assert (await alice.client.call("get_lid_from_pn", f"{bob}@s.whatsapp.net"))["User"] == await alice.lid(bob)


async def test_shows_nothing_of_an_unknown_number(alice: Linked) -> None:
    (found,) = await alice.client.call("get_user_info", "4900000000@s.whatsapp.net")
    assert found["JID"]["User"] == "4900000000"
    assert (found["UserInfo"].get("Status", ""), found["UserInfo"].get("Devices", [])) == ("", [])


async def test_a_phone_asks_as_a_client_does(alice: Linked) -> None:
    """The answer to a phone's query is that of a client."""
    bob = await alice.person()
    wanted = node("query", {}, node("lid"))
    asked = node("list", {}, node("user", {"jid": f"{alice.pn}@s.whatsapp.net"}))
    (usync,) = await alice.control.person(bob).ask("usync", "get", node("usync", {}, wanted, asked))
    (user,) = usync.children[0].children
    lid = user.find("lid")
    assert lid is not None and lid.text("val") == (await alice.control.phone(alice.pn)).lid
