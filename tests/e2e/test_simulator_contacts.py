"""Contacts and profiles of the simulator as the real neonize sees them. One client makes all calls."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from simulator.binary_xml import Node, node
from simulator.control import ControlError
from simulator.jid import Jid
from tests.e2e.client_process import CallFailed
from tests.e2e.linked_client import LinkedClient, linked_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LinkedClient]:
    """A client that is linked to Alice and connected."""
    async with linked_client(tmp_path_factory.mktemp("client")) as alice:
        yield alice


async def ask_for_picture(alice: LinkedClient, pn: str, *, known: str = "", preview: bool = False) -> dict[str, str]:
    """Ask for a person's picture. The parameters count only if all three are set."""
    fields = {"Preview": preview, "ExistingID": known, "IsCommunity": False}
    asked = {"message": "GetProfilePictureParams", "fields": fields}
    found: dict[str, str] = await alice.client.call("get_profile_picture", f"{pn}@s.whatsapp.net", asked)
    return found


# --- who is on WhatsApp


async def test_tells_who_is_on_whatsapp(alice: LinkedClient) -> None:
    bob, shop = await alice.create(), await alice.create("Shop")
    await alice.person(shop).set_business_name("Shop Ltd.")
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


async def test_tells_the_hidden_id_of_a_number(alice: LinkedClient) -> None:
    bob = await alice.create()
    unknown = await alice.client.call("get_lid_from_pn", f"{bob}@s.whatsapp.net")
    assert unknown["IsEmpty"]
    await alice.client.call("is_on_whatsapp", f"+{bob}")
    lid = await alice.client.call("get_lid_from_pn", f"{bob}@s.whatsapp.net")
    assert lid["User"] == await alice.lid(bob)
    assert (await alice.client.call("get_pn_from_lid", f"{lid['User']}@lid"))["User"] == bob


async def test_shows_what_a_person_shows(alice: LinkedClient) -> None:
    bob = await alice.create()
    await alice.person(bob).set_about("At the garden")
    (found,) = await alice.client.call("get_user_info", f"{bob}@s.whatsapp.net")
    info = found["UserInfo"]
    assert info["Status"] == "At the garden"
    assert [device["User"] for device in info["Devices"]] == [bob]
    assert (await alice.client.call("get_lid_from_pn", f"{bob}@s.whatsapp.net"))["User"] == await alice.lid(bob)


async def test_shows_nothing_of_an_unknown_number(alice: LinkedClient) -> None:
    (found,) = await alice.client.call("get_user_info", "4900000000@s.whatsapp.net")
    assert found["JID"]["User"] == "4900000000"
    assert (found["UserInfo"].get("Status", ""), found["UserInfo"].get("Devices", [])) == ("", [])


async def test_a_phone_asks_as_a_client_does(alice: LinkedClient) -> None:
    """The answer to a phone's query is that of a client."""
    bob = await alice.create()
    wanted = node("query", {}, node("lid"))
    asked = node("list", {}, node("user", {"jid": f"{alice.pn}@s.whatsapp.net"}))
    (usync,) = await alice.person(bob).ask("usync", "get", node("usync", {}, wanted, asked))
    (user,) = usync.children[0].children
    lid = user.find("lid")
    assert lid is not None and lid.text("val") == (await alice.control.phone(alice.pn)).lid


# --- pictures and about


async def test_shows_a_picture(alice: LinkedClient) -> None:
    bob = await alice.create()
    with pytest.raises(CallFailed, match="does not have a profile picture"):
        await ask_for_picture(alice, bob)
    await alice.person(bob).set_picture(JPEG)
    picture, preview = [await ask_for_picture(alice, bob, preview=small) for small in (False, True)]
    assert picture["ID"] == preview["ID"] == (await alice.person(bob).profile()).picture
    assert (picture["Type"], preview["Type"]) == ("image", "preview")
    assert picture["URL"] == "https://pps.whatsapp.net" + picture["DirectPath"] and picture["DirectPath"][0] == "/"
    assert preview["URL"] != picture["URL"]
    assert await ask_for_picture(alice, bob, known=picture["ID"]) == {}
    (found,) = await alice.client.call("get_user_info", f"{bob}@s.whatsapp.net")
    assert found["UserInfo"]["PictureID"] == picture["ID"]
    await alice.person(bob).set_picture(b"")
    with pytest.raises(CallFailed, match="does not have a profile picture"):
        await ask_for_picture(alice, bob)


async def test_hides_what_a_person_hides(alice: LinkedClient) -> None:
    bob = await alice.create()
    person, address = alice.person(bob), f"{bob}@s.whatsapp.net"
    await person.set_picture(JPEG)
    await person.set_about("for friends")
    for setting in ("profile", "status"):
        await person.set_privacy(setting, "contacts")
    with pytest.raises(CallFailed, match="has hidden their profile picture"):
        await ask_for_picture(alice, bob)
    (stranger,) = await alice.client.call("get_user_info", address)
    assert (stranger["UserInfo"].get("Status", ""), stranger["UserInfo"].get("PictureID", "")) == ("", "")
    await person.save_contacts(alice.pn)
    await ask_for_picture(alice, bob)
    (friend,) = await alice.client.call("get_user_info", address)
    assert friend["UserInfo"]["Status"] == "for friends"
    await person.block(alice.pn)
    with pytest.raises(CallFailed, match="has hidden their profile picture"):
        await ask_for_picture(alice, bob)


async def test_a_contact_hears_of_a_new_picture(alice: LinkedClient) -> None:
    bob = await alice.create()
    await alice.person().save_contacts(bob)
    await alice.person(bob).set_picture(JPEG)
    changed = await alice.client.expect("picture")
    assert (changed["JID"]["User"], changed["Remove"]) == (await alice.lid(bob), False)
    await alice.person(bob).set_picture(b"")
    assert (await alice.client.expect("picture"))["Remove"]


async def test_sets_the_own_profile(alice: LinkedClient) -> None:
    picture_id = await alice.client.call("set_profile_photo", {"data": base64.b64encode(JPEG).decode()})
    await alice.client.call("set_status_message", "On holiday")
    profile = await alice.person().profile()
    assert (profile.picture, profile.about) == (picture_id, "On holiday")
    with pytest.raises(CallFailed, match="not a valid image"):
        await alice.client.call("set_profile_photo", {"data": base64.b64encode(b"no JPEG").decode()})
    with pytest.raises(CallFailed, match="400"):
        await alice.client.call("set_status_message", "x" * 140)
    assert await alice.person().profile() == profile


async def test_sets_the_own_name(alice: LinkedClient) -> None:
    """The name is a patch of the app state, which the phone decrypts."""
    for name in ("Alice B.", "Alice C."):
        await alice.client.call("set_profile_name", name)
        assert (await alice.control.phone(alice.pn)).push_name == name


async def test_does_not_take_app_state_without_a_collection(alice: LinkedClient) -> None:
    before = (await alice.control.state()).unknown.get("app-state/collection-without-name", 0)
    mutation = {"Index": ["archive", f"{alice.pn}@s.whatsapp.net"], "Version": 3, "Value": {"timestamp": 1}}
    change = {"message": "PatchInfo", "fields": {"Timestamp": 1, "Type": "REGULAR_LOW", "Mutations": [mutation]}}
    with pytest.raises(CallFailed, match="bad-request"):
        await alice.client.call("send_app_state", change)
    assert (await alice.control.state()).unknown["app-state/collection-without-name"] == before + 1


# --- settings


async def test_blocks_people(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    address = f"{bob}@s.whatsapp.net"
    listed = await alice.client.call("update_blocklist", address, {"enum": "BlocklistAction.BLOCK"})
    assert [jid["User"] for jid in listed["JIDs"]] == [await alice.lid(bob)]
    assert (await alice.person().profile()).blocked == [bob]
    await alice.person().block(carol)
    assert (await alice.client.expect("blocklist"))["DHASH"] != listed["DHash"]
    listed = await alice.client.call("get_blocklist")
    assert {jid["User"] for jid in listed["JIDs"]} == {await alice.lid(bob), await alice.lid(carol)}
    await alice.client.call("update_blocklist", address, {"enum": "BlocklistAction.UNBLOCK"})
    with pytest.raises(CallFailed, match="400: bad-request"):
        await alice.client.call("update_blocklist", address, {"enum": "BlocklistAction.UNBLOCK"})
    assert (await alice.person().profile()).blocked == [carol]


async def test_messages_do_not_reach_whom_blocks_the_sender(alice: LinkedClient) -> None:
    bob = await alice.create()
    await alice.person(bob).block(alice.pn)
    await alice.client.send(bob, "blocked")
    await alice.person(bob).unblock(alice.pn)
    await alice.client.send(bob, "unblocked")
    assert [it.text for it in await alice.control.inbox(bob)] == ["unblocked"]
    assert "blocked" in [it.text for it in await alice.control.inbox(alice.pn)], "the own phone gets its copy"


async def test_keeps_privacy_settings(alice: LinkedClient) -> None:
    """The library applies a setting and then raises in any case."""
    with pytest.raises(CallFailed):
        await alice.client.call(
            "set_privacy_setting", {"enum": "PrivacySettingType.LAST_SEEN"}, {"enum": "PrivacySetting.NONE"}
        )
    assert (await alice.person().profile()).privacy["last"] == "none"
    assert (await alice.client.call("get_privacy_settings"))["LastSeen"] == "NONE"
    with pytest.raises(ControlError, match="400 bad-request"):
        await alice.person().set_privacy("last", "sometimes")


async def test_sets_the_timer_of_new_chats(alice: LinkedClient) -> None:
    day = 86_400
    await alice.client.call("set_default_disappearing_timer", day * 10**9)
    with pytest.raises(CallFailed, match="400"):
        await alice.client.call("set_default_disappearing_timer", 17 * 10**9)
    assert (await alice.person().profile()).disappearing == day


async def test_a_link_leads_to_a_person(alice: LinkedClient) -> None:
    link = await alice.client.call("get_contact_qr_link", False)
    found = await alice.client.call("resolve_contact_qr_link", link)
    assert found["JID"]["User"] == alice.pn
    assert await alice.client.call("get_contact_qr_link", True) != link
    with pytest.raises(CallFailed, match="does not exist or has been revoked"):
        await alice.client.call("resolve_contact_qr_link", link)


async def test_shows_the_audience_of_the_status(alice: LinkedClient) -> None:
    (audience,) = await alice.client.call("get_status_privacy")
    assert audience["Type"] == "CONTACTS"


async def test_refuses_changes_of_what_is_not_ones_own(alice: LinkedClient) -> None:
    bob = await alice.create()
    picture = node("picture", {"type": "image"}, JPEG)
    with pytest.raises(ControlError, match="403 forbidden"):
        await alice.person(bob).ask("w:profile:picture", "set", picture, target=str(Jid(alice.pn)))


@pytest.mark.parametrize(
    ("namespace", "kind", "child"),
    [
        ("usync", "get", node("usync")),
        ("w:profile:picture", "get", node("picture", {"query": "url", "type": "huge"})),
        ("privacy", "set", node("privacy")),
        ("privacy", "set", node("privacy", {}, node("category", {"name": "mood", "value": "all"}))),
        ("blocklist", "set", node("item", {"action": "block", "jid": Jid("4900000000")})),
        ("disappearing_mode", "set", node("disappearing_mode", {"duration": 17})),
        ("w:qr", "set", node("qr", {"type": "contact", "action": "burn"})),
        ("w:mex", "get", node("query", {"query_id": "1"}, b"no JSON")),
    ],
    ids=lambda it: getattr(it, "tag", it),
)
async def test_refuses_malformed_queries(alice: LinkedClient, namespace: str, kind: str, child: Node) -> None:
    before = await alice.person().profile()
    with pytest.raises(ControlError, match="400 bad-request"):
        await alice.person().ask(namespace, kind, child)
    assert await alice.person().profile() == before


async def test_answers_an_unknown_mex_query_with_an_error(alice: LinkedClient) -> None:
    with pytest.raises(LookupError, match="unknown query"):
        await alice.person().ask_mex("1")
