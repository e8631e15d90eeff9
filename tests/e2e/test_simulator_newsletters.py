"""Newsletters of the simulator as the real neonize sees them. One client makes all calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from simulator.control import ControlError, wait_for
from simulator.views import PostView
from tests.e2e.client_process import CallFailed
from tests.e2e.linked_client import LinkedClient, linked_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

JPEG_BASE64 = "/9j/4AAQSkZJRgABAQAAAQABAAD/2Q=="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LinkedClient]:
    """A client that is linked to Alice and connected."""
    async with linked_client(tmp_path_factory.mktemp("client")) as alice:
        yield alice


def text(content: str) -> bytes:
    """Return the bytes of a text."""
    serialised: bytes = Message(conversation=content).SerializeToString()
    return serialised


async def post_with(alice: LinkedClient, newsletter: str, **numbers: object) -> PostView:
    """Wait until a post has these numbers."""

    async def counted() -> PostView | None:
        posts = (await alice.control.newsletter(newsletter)).posts
        return next((it for it in posts if numbers.items() <= vars(it).items()), None)

    return await wait_for(counted, 10.0, f"a post with {numbers}")


async def test_creates_a_newsletter_and_posts(alice: LinkedClient) -> None:
    made = await alice.client.call("create_newsletter", "News", "What is new", {"data": JPEG_BASE64})
    address = f"{made['ID']['User']}@newsletter"
    assert (made["ThreadMeta"]["Name"]["Text"], made["ViewerMeta"]["Role"]) == ("News", "OWNER")
    sent = await alice.client.call("send_message", address, "first")
    newsletter = await alice.control.newsletter(address)
    assert (newsletter.owner, newsletter.description) == (alice.pn, "What is new")
    assert [(it.id, it.server_id, it.type) for it in newsletter.posts] == [(sent["ID"], int(sent["ServerID"]), "text")]


async def test_follows_a_newsletter(alice: LinkedClient) -> None:
    bob = await alice.create()
    address = await alice.person(bob).create_newsletter("News", "What is new")
    invite = (await alice.control.newsletter(address)).invite
    for method, key in (("get_newsletter_info", address), ("get_newsletter_info_with_invite", invite)):
        found = await alice.client.call(method, key)
        assert (found["ThreadMeta"]["Name"]["Text"], found["ID"]["User"]) == ("News", address.partition("@")[0])
    await alice.client.call("follow_newsletter", address)
    followed = await alice.client.call("get_subscribed_newletters")
    assert address.partition("@")[0] in {it["ID"]["User"] for it in followed}
    await alice.client.call("newsletter_toggle_mute", address, True)
    newsletter = await alice.control.newsletter(address)
    assert (newsletter.followers, newsletter.muted) == ([bob, alice.pn], [alice.pn])
    await alice.client.call("newsletter_toggle_mute", address, False)
    await alice.client.call("unfollow_newsletter", address)
    newsletter = await alice.control.newsletter(address)
    assert (newsletter.followers, newsletter.muted) == ([bob], [])


async def test_reads_and_reacts(alice: LinkedClient) -> None:
    bob = await alice.create()
    address = await alice.person(bob).create_newsletter("News")
    await alice.client.call("follow_newsletter", address)
    first, second = [await alice.person(bob).post(address, text(content)) for content in ("first", "second")]
    await alice.client.expect("message", text="second")
    posts = await alice.client.call("get_newsletter_messages", address, 10, 0)
    assert [int(it["MessageServerID"]) for it in posts] == [first, second]
    assert [it["Message"]["conversation"] for it in posts] == ["first", "second"]
    earlier = await alice.client.call("get_newsletter_messages", address, 10, second)
    assert [int(it["MessageServerID"]) for it in earlier] == [first]
    await alice.client.call("newsletter_send_reaction", address, first, "👍", "")
    await post_with(alice, address, server_id=first, reactions={"👍": 1})
    await alice.client.call("newsletter_mark_viewed", address, [first])
    await post_with(alice, address, server_id=first, views=1)
    (updated,) = await alice.client.call("get_newsletter_message_update", address, 1, 0, first - 1)
    assert (int(updated["ViewsCount"]), updated["ReactionCounts"]) == (1, [{"type": "👍", "count": "1"}])
    await alice.client.call("newsletter_send_reaction", address, first, "", "")
    await post_with(alice, address, server_id=first, reactions={})


async def test_asks_for_live_updates(alice: LinkedClient) -> None:
    address = await alice.person(await alice.create()).create_newsletter("News")
    assert await alice.client.call("newsletter_subscribe_live_updates", address) == 300 * 10**9


async def test_hears_of_what_the_own_phone_does(alice: LinkedClient) -> None:
    bob = await alice.create()
    address = await alice.person(bob).create_newsletter("News")
    for query_id, event in (
        ("9926858900719341", "newsletter-joined"),
        ("6274038279359549", "newsletter-muted"),
        ("6392786840836363", "newsletter-left"),
    ):
        await alice.person().ask_mex(query_id, newsletter_id=address)
        await alice.client.expect(event)


async def test_refuses_what_is_not_allowed(alice: LinkedClient) -> None:
    bob = await alice.create()
    address = await alice.person(bob).create_newsletter("News")
    with pytest.raises(CallFailed, match="server returned error 403"):
        await alice.client.call("send_message", address, "not mine")
    with pytest.raises(CallFailed, match="server returned error 404"):
        await alice.client.call("send_message", "120363000000000000@newsletter", "nowhere")
    with pytest.raises(CallFailed, match="404 not found"):
        await alice.client.call("get_newsletter_info", "120363000000000000@newsletter")
    with pytest.raises(CallFailed, match="404 not found"):
        await alice.client.call("follow_newsletter", "120363000000000000@newsletter")
    with pytest.raises(CallFailed, match="403 forbidden"):
        await alice.client.call("newsletter_toggle_mute", address, True)
    with pytest.raises(CallFailed, match="404: item-not-found"):
        await alice.client.call("get_newsletter_messages", "120363000000000000@newsletter", 10, 0)
    with pytest.raises(ControlError, match="403"):
        await alice.person(await alice.create()).post(address, text("not mine"))
    assert (await alice.control.newsletter(address)).posts == []
