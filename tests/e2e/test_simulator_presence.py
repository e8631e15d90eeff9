"""Presence, typing, calls and failing queries of the simulator, as the real neonize sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from simulator.control import ControlError, wait_for
from simulator.views import CallView, TypingView
from tests.e2e.client_process import CallFailed
from tests.e2e.linked_client import LinkedClient, linked_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPOSING, PAUSED = ({"enum": f"ChatPresence.CHAT_PRESENCE_{state}"} for state in ("COMPOSING", "PAUSED"))
TEXT, AUDIO = ({"enum": f"ChatPresenceMedia.CHAT_PRESENCE_MEDIA_{media}"} for media in ("TEXT", "AUDIO"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LinkedClient]:
    """A client that is linked to Alice and connected."""
    async with linked_client(tmp_path_factory.mktemp("client")) as alice:
        yield alice


@pytest_asyncio.fixture(loop_scope="module")
async def alice(client: LinkedClient) -> AsyncIterator[LinkedClient]:
    """The client, which is available."""
    await set_available(client, available=True)
    yield client
    await client.control.clear_faults()


async def set_available(alice: LinkedClient, *, available: bool) -> None:
    """Send the client's presence, and wait until the server has taken it."""
    state = "AVAILABLE" if available else "UNAVAILABLE"

    async def sent() -> bool | None:
        try:
            await alice.client.call("send_presence", {"enum": f"Presence.{state}"})
        except CallFailed:
            return None  # the app state has not brought the push name yet
        return (await alice.person().presence()).is_available is available or None

    await wait_for(sent, 10.0, f"presence {state}")


async def subscribed(alice: LinkedClient, pn: str) -> None:
    """Subscribe to a person's presence, and wait until the server has taken it."""
    await alice.client.call("subscribe_presence", f"{pn}@s.whatsapp.net")

    async def taken() -> bool | None:
        return alice.jid in (await alice.person(pn).presence()).subscribers or None

    await wait_for(taken, 10.0, "the subscription")


async def typings(alice: LinkedClient, pn: str, count: int) -> list[TypingView]:
    """Wait until a number of typing states has reached a phone."""

    async def arrived() -> list[TypingView] | None:
        found = (await alice.person(pn).presence()).typings
        return found if len(found) >= count else None

    return await wait_for(arrived, 10.0, f"{count} typing states")


# --- presence


async def test_hears_of_the_presence_of_others(alice: LinkedClient) -> None:
    bob = await alice.create()
    await subscribed(alice, bob)
    lid = await alice.lid(bob)
    first = await alice.client.expect("presence")
    assert (first["From"]["User"], first["Unavailable"]) == (lid, True)
    await alice.person(bob).appear()
    assert not (await alice.client.expect("presence"))["Unavailable"]
    await alice.person(bob).disappear()
    last = await alice.client.expect("presence")
    assert last["Unavailable"]
    assert int(last["LastSeen"]) == (await alice.person(bob).presence()).last_seen_at


async def test_hears_only_what_is_shown(alice: LinkedClient) -> None:
    bob, hidden = await alice.create(), await alice.create()
    await alice.person(hidden).set_privacy("last", "none")
    await alice.person(hidden).set_privacy("online", "match_last_seen")
    await alice.person(bob).set_privacy("last", "none")
    for person in (hidden, bob):
        await alice.person(person).appear()
        await subscribed(alice, person)
        await alice.person(person).disappear()
    seen = [await alice.client.expect("presence") for _ in range(2)]
    assert [it["From"]["User"] for it in seen] == [await alice.lid(bob)] * 2, "nothing of the person who hides it"
    assert [(it["Unavailable"], int(it.get("LastSeen", 0)) > 0) for it in seen] == [(False, False), (True, False)]


async def test_hears_nothing_while_unavailable(alice: LinkedClient) -> None:
    bob = await alice.create()
    await subscribed(alice, bob)
    await alice.client.expect("presence")
    await set_available(alice, available=False)
    await alice.person(bob).appear()
    await alice.person(bob).type(alice.pn)
    await set_available(alice, available=True)
    await alice.person(bob).type(alice.pn, "paused")
    assert (await alice.client.expect("chat-presence"))["State"] == "PAUSED"
    assert not alice.client.has_told("presence")


async def test_a_subscription_ends_with_the_connection(alice: LinkedClient) -> None:
    bob = await alice.create()
    await subscribed(alice, bob)
    logins = (await alice.control.device(alice.jid)).logins
    await alice.control.drop(alice.jid)
    await alice.control.wait_for_connected(alice.jid, logins + 1)
    assert (await alice.person(bob).presence()).subscribers == []


# --- typing


async def test_types(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    group = (await alice.control.create_group(bob, "Garden", [alice.pn])).jid
    foreign = (await alice.control.create_group(carol, "Secret", [bob])).jid
    await alice.person(bob).appear()
    for chat, state, media in (
        (f"{bob}@s.whatsapp.net", COMPOSING, AUDIO),
        (foreign, COMPOSING, TEXT),
        (group, COMPOSING, TEXT),
        (group, PAUSED, TEXT),
    ):
        await alice.client.call("send_chat_presence", chat, state, media)
    seen = [(it.sender, it.chat, it.state, it.media) for it in await typings(alice, bob, 3)]
    assert seen == [
        (alice.pn, alice.pn, "composing", "audio"),
        (alice.pn, group, "composing", ""),
        (alice.pn, group, "paused", ""),
    ]


async def test_hears_who_types(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = (await alice.control.create_group(bob, "Garden", [alice.pn])).jid
    await alice.person(bob).type(alice.pn, media="audio")
    await alice.person(bob).type(group)
    alone, in_group = [await alice.client.expect("chat-presence") for _ in range(2)]
    assert (alone["State"], alone["Media"]) == ("COMPOSING", "AUDIO")
    assert {it["MessageSource"]["Sender"]["User"] for it in (alone, in_group)} == {await alice.lid(bob)}
    assert in_group["MessageSource"]["IsGroup"] and not alone["MessageSource"]["IsGroup"]


async def test_does_not_hear_whom_one_blocks(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    await alice.person().block(bob)
    await alice.person(bob).type(alice.pn)
    await alice.person(bob).call(alice.pn)
    await alice.person(carol).call(alice.pn)
    assert (await alice.client.expect("call-offer"))["basicCallMeta"]["from"]["User"] == await alice.lid(carol)
    assert not alice.client.has_told("chat-presence")


# --- calls


async def test_rejects_a_call(alice: LinkedClient) -> None:
    bob = await alice.create()
    call_id = await alice.person(bob).call(alice.pn, "video")
    offer = (await alice.client.expect("call-offer"))["basicCallMeta"]
    assert (offer["callID"], offer["callCreator"]["User"]) == (call_id, await alice.lid(bob))
    await alice.client.call("reject_call", f"{await alice.lid(bob)}@lid", call_id)

    async def rejected() -> CallView | None:
        return next((it for it in await alice.person(bob).calls() if it.state == "rejected"), None)

    call = await wait_for(rejected, 10.0, "the rejection")
    assert (call.id, call.to, call.media) == (call_id, alice.pn, "video")
    assert (await alice.client.expect("call-terminate"))["basicCallMeta"]["callID"] == call_id
    await alice.control.wait_for_device(alice.jid, lambda it: it.queue == 0)


async def test_hears_the_end_of_a_call(alice: LinkedClient) -> None:
    bob = await alice.create()
    call_id = await alice.person(bob).call(alice.pn)
    await alice.client.expect("call-offer")
    await alice.person(bob).hang_up(call_id)
    await alice.client.expect("call-terminate")
    assert [it.state for it in await alice.person(bob).calls()] == ["ended"]
    with pytest.raises(ControlError, match="UnknownCall"):
        await alice.person().hang_up(call_id)


async def test_a_group_is_called(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = (await alice.control.create_group(bob, "Garden", [alice.pn])).jid
    call_id = await alice.person(bob).call(group, "video")
    notice = await alice.client.expect("call-offer-notice")
    assert (notice["basicCallMeta"]["callID"], notice["media"], notice["type"]) == (call_id, "video", "group")


# --- failing queries


async def test_a_query_fails_by_namespace_and_child(alice: LinkedClient) -> None:
    group = (await alice.control.create_group(alice.pn, "Garden", [])).jid
    await alice.control.fail_queries("w:g2/subject", 429, "rate-overlimit", times=2)
    for _ in range(2):
        with pytest.raises(CallFailed, match="429: rate-overlimit"):
            await alice.client.call("set_group_name", group, "Orchard")
        await alice.client.call("get_group_info", group)
    await alice.client.call("set_group_name", group, "Orchard")


async def test_a_query_hangs(alice: LinkedClient) -> None:
    group = (await alice.control.create_group(alice.pn, "Garden", [])).jid
    await alice.control.hold_queries("w:g2/subject")
    await alice.client.command("call", method="set_group_name", arguments=[group, "Orchard"])
    await alice.control.wait_for_held_queries()
    assert (await alice.control.group(group)).subject == "Garden"
    assert await alice.control.release_queries() == 1
    assert "result" in await alice.client.expect("called")
    assert (await alice.control.group(group)).subject == "Orchard"
