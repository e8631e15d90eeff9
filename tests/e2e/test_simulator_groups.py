"""Groups and communities of the simulator as the real neonize sees them. One client makes all calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from simulator.binary_xml import Node, node
from simulator.control import ControlError
from simulator.jid import GROUP_SERVER, Jid
from tests.e2e.client_process import CallFailed
from tests.e2e.linked_client import LinkedClient, linked_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = 86_400
JPEG_BASE64 = "/9j/4AAQSkZJRgABAQAAAQABAAD/2Q=="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LinkedClient]:
    """A client that is linked to Alice and connected."""
    async with linked_client(tmp_path_factory.mktemp("client")) as alice:
        yield alice


async def own_group(alice: LinkedClient, *members: str) -> str:
    """Return the address of a new group that the client created."""
    made = await alice.client.call("create_group", "Garden", [f"{pn}@s.whatsapp.net" for pn in members])
    return f"{made['JID']['User']}@g.us"


async def other_group(alice: LinkedClient, creator: str, *members: str) -> str:
    """Return the address of a new group that another person created with the client's person in it."""
    group = await alice.control.create_group(creator, "Garden", [alice.pn, *members])
    await alice.client.expect("joined", group="Garden")
    return group.jid


async def change_members(alice: LinkedClient, group: str, action: str, *people: str) -> list[int]:
    """Change members with the client; an error code for each, 0 for success."""
    addresses = [f"{pn}@s.whatsapp.net" for pn in people]
    results = await alice.client.call(
        "update_group_participants", group, addresses, {"enum": f"ParticipantChange.{action}"}
    )
    return [int(it.get("Error", 0)) for it in results]


async def heard(alice: LinkedClient, group: str, field: str) -> Any:
    """Return a part of the next change of a group that the client hears of."""
    while (change := await alice.client.expect("group-change"))["JID"]["User"] != user_of(group):
        pass  # of an earlier test
    assert field in change, change
    return change[field]


def user(address: dict[str, str]) -> str:
    """Return the user part of an address in a result."""
    return address["User"]


def user_of(address: str) -> str:
    """Return the user part of an address."""
    return address.partition("@")[0]


# --- as a whole


async def test_creates_a_group(alice: LinkedClient) -> None:
    bob, shy = await alice.create(), await alice.create("Carol")
    await alice.person(shy).set_privacy("groupadd", "none")
    people = [f"{pn}@s.whatsapp.net" for pn in (bob, shy, "4900000000")]
    made = await alice.client.call("create_group", "Garden", people)
    errors = {it["JID"]["User"]: int(it.get("Error", 0)) for it in made["Participants"]}
    lids = [await alice.lid(pn) for pn in (alice.pn, bob, shy)]
    assert [errors.get(name) for name in (*lids, "4900000000")] == [0, 0, 403, 404]
    (invited,) = [it for it in made["Participants"] if it["JID"]["User"] == lids[2]]
    assert invited["AddRequest"]["Code"]
    group = await alice.control.group(f"{made['JID']['User']}@g.us")
    assert (group.subject, group.creator, group.members, group.admins) == (
        *("Garden", alice.pn),
        *([alice.pn, bob], [alice.pn]),
    )


async def test_shows_a_group(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await other_group(alice, bob)
    await alice.person(bob).member_of(group).describe("Water the flowers", "ABC")
    info = await alice.client.call("get_group_info", group)
    assert info["GroupName"]["Name"] == "Garden"
    assert info["GroupTopic"]["Topic"] == "Water the flowers"
    ranks = {it["LID"]["User"]: (it["IsAdmin"], it["IsSuperAdmin"]) for it in info["Participants"]}
    assert ranks == {await alice.lid(bob): (True, True), await alice.lid(alice.pn): (False, False)}
    assert {it["PhoneNumber"]["User"] for it in info["Participants"]} == {alice.pn, bob}
    listed = await alice.client.call("get_joined_groups")
    assert user(info["JID"]) in {user(it["JID"]) for it in listed}


async def test_shows_only_own_groups(alice: LinkedClient) -> None:
    bob = await alice.create()
    foreign = (await alice.control.create_group(bob, "Secret", [])).jid
    with pytest.raises(CallFailed, match="not participating in that group"):
        await alice.client.call("get_group_info", foreign)
    with pytest.raises(CallFailed, match="that group does not exist"):
        await alice.client.call("get_group_info", "120363000000000000@g.us")
    with pytest.raises(CallFailed, match="403: forbidden"):
        await alice.client.call("set_group_name", foreign, "Mine")
    assert user_of(foreign) not in {user(it["JID"]) for it in await alice.client.call("get_joined_groups")}


async def test_leaves_a_group(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    group = await own_group(alice, bob, carol)
    await alice.client.call("leave_group", group)
    left = await alice.control.group(group)
    assert (left.members, left.admins) == ([bob, carol], [bob]), "the longest member is an admin now"
    with pytest.raises(CallFailed, match="403: forbidden"):
        await alice.client.call("leave_group", group)


# --- members


async def test_changes_members(alice: LinkedClient) -> None:
    bob, carol, shy = [await alice.create() for _ in range(3)]
    await alice.person(shy).set_privacy("groupadd", "contacts")
    group = await own_group(alice, bob)
    assert await change_members(alice, group, "ADD", carol, bob, shy, "4900000000") == [0, 409, 403, 404]
    assert await change_members(alice, group, "PROMOTE", carol, shy) == [0, 404]
    assert (await alice.control.group(group)).admins == [alice.pn, carol]
    assert await change_members(alice, group, "DEMOTE", carol, alice.pn) == [0, 405]
    assert await change_members(alice, group, "REMOVE", carol, alice.pn, shy) == [0, 405, 404]
    now = await alice.control.group(group)
    assert (now.members, now.admins) == ([alice.pn, bob], [alice.pn])


async def test_hears_of_changes_of_members(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    group = await other_group(alice, bob)
    as_bob, carols_lid = alice.person(bob).member_of(group), await alice.lid(carol)
    assert await as_bob.add(carol) == [0]
    assert [user(it) for it in await heard(alice, group, "Join")] == [carols_lid]
    assert await as_bob.promote(carol, alice.pn) == [0, 0]
    assert [user(it) for it in await heard(alice, group, "Promote")] == [carols_lid, await alice.lid(alice.pn)]
    assert await as_bob.demote(carol) == [0]
    assert [user(it) for it in await heard(alice, group, "Demote")] == [carols_lid]
    assert await as_bob.remove(carol) == [0]
    assert [user(it) for it in await heard(alice, group, "Leave")] == [carols_lid]
    assert await as_bob.remove(alice.pn) == [0]
    assert [user(it) for it in await heard(alice, group, "Leave")] == [await alice.lid(alice.pn)]
    with pytest.raises(CallFailed, match="not participating in that group"):
        await alice.client.call("get_group_info", group)
    assert await as_bob.add(alice.pn) == [0]
    await alice.client.expect("joined", group="Garden")


async def test_only_admins_change_members(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    group = await other_group(alice, bob, carol)
    for action in ("REMOVE", "PROMOTE", "DEMOTE"):
        with pytest.raises(CallFailed, match="403: forbidden"):
            await change_members(alice, group, action, carol)
    dan = await alice.create("Dan")
    assert await change_members(alice, group, "ADD", dan) == [0], "anybody may add unless the mode is another"
    await alice.person(bob).member_of(group).set(node("member_add_mode", {}, b"admin_add"))
    with pytest.raises(CallFailed, match="403: forbidden"):
        await change_members(alice, group, "ADD", await alice.create("Eve"))
    assert (await alice.control.group(group)).members == [bob, alice.pn, carol, dan]


# --- settings


async def test_sets_name_and_description(alice: LinkedClient) -> None:
    group = await own_group(alice, await alice.create())
    await alice.client.call("set_group_name", group, "Orchard")
    for text in ("first", "second", ""):
        await alice.client.call("set_group_topic", group, {"plain": ""}, {"plain": ""}, text)
        assert (await alice.control.group(group)).description == text
    with pytest.raises(CallFailed, match="406: not-acceptable"):
        await alice.client.call("set_group_name", group, "x" * 101)
    assert (await alice.control.group(group)).subject == "Orchard"


async def test_a_description_replaces_the_current_one(alice: LinkedClient) -> None:
    bob = await alice.create()
    as_bob = alice.person(bob).member_of(await other_group(alice, bob))
    await as_bob.describe("first", "A")
    with pytest.raises(ControlError, match="409 conflict"):
        await as_bob.describe("second", "B")
    await as_bob.describe("second", "B", "A")


async def test_restricts_a_group(alice: LinkedClient) -> None:
    group = await own_group(alice, bob := await alice.create())
    await alice.client.call("set_group_locked", group, True)
    await alice.client.call("set_group_announce", group, True)
    await alice.client.call("set_disappearing_timer", group, DAY * 10**9)
    now = await alice.control.group(group)
    assert (now.is_locked, now.is_announcement, now.expiration) == (True, True, DAY)
    info = await alice.client.call("get_group_info", group)
    assert info["GroupLocked"]["isLocked"] and info["GroupAnnounce"]["IsAnnounce"]
    assert info["GroupEphemeral"]["DisappearingTimer"] == DAY
    with pytest.raises(ControlError, match="403 forbidden"):
        await alice.person(bob).member_of(group).rename("Mine")
    with pytest.raises(CallFailed, match="invalid disappearing timer provided"):
        await alice.client.call("set_disappearing_timer", group, 17 * 10**9)
    await alice.client.call("set_group_locked", group, False)
    await alice.client.call("set_group_announce", group, False)
    await alice.client.call("set_disappearing_timer", group, 0)
    now = await alice.control.group(group)
    assert (now.is_locked, now.is_announcement, now.expiration) == (False, False, 0)
    await alice.person(bob).member_of(group).rename("Ours")


async def test_hears_of_changes_of_settings(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await other_group(alice, bob)
    as_bob = alice.person(bob).member_of(group)
    await as_bob.rename("Orchard")
    assert (await heard(alice, group, "Name"))["Name"] == "Orchard"
    await as_bob.describe("Apples", "A")
    assert (await heard(alice, group, "Topic"))["Topic"] == "Apples"
    for change, field, part in (
        ("locked", "Locked", "isLocked"),
        ("announcement", "Announce", "IsAnnounce"),
    ):
        await as_bob.set(node(change))
        assert (await heard(alice, group, field))[part]
    await as_bob.set(node("ephemeral", {"expiration": DAY}))
    assert (await heard(alice, group, "Ephemeral"))["DisappearingTimer"] == DAY
    code = await as_bob.reset_invite()
    assert (await heard(alice, group, "NewInviteLink")).endswith(code)


async def test_only_admins_change_settings(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await other_group(alice, bob)
    await alice.client.call("set_group_name", group, "Everybody may")
    for method, *arguments in (
        ("set_group_locked", True),
        ("set_group_announce", True),
        ("get_group_request_participants",),
    ):
        with pytest.raises(CallFailed, match="403: forbidden"):
            await alice.client.call(str(method), group, *arguments)
    for reset in (False, True):
        with pytest.raises(CallFailed, match="you don't have the permission to get the group's invite link"):
            await alice.client.call("get_group_invite_link", group, reset)
    await alice.person(bob).member_of(group).set(node("locked"))
    with pytest.raises(CallFailed, match="403: forbidden"):
        await alice.client.call("set_group_name", group, "Nobody may")
    now = await alice.control.group(group)
    assert (now.subject, now.is_announcement) == ("Everybody may", False)


async def test_only_admins_write_in_an_announcement_group(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await other_group(alice, bob)
    await alice.client.send(group, "before")
    await alice.person(bob).member_of(group).set(node("announcement"))
    with pytest.raises(CallFailed, match="server returned error 403"):
        await alice.client.call("send_message", group, "after")
    await alice.person(bob).member_of(group).promote(alice.pn)
    await alice.client.send(group, "as an admin")
    assert [it.text for it in await alice.control.inbox(bob)] == ["before", "as an admin"]


async def test_sets_a_picture(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await other_group(alice, bob)
    picture_id = await alice.client.call("set_group_photo", group, {"data": JPEG_BASE64})
    assert (await alice.control.group(group)).picture == picture_id
    assert (await alice.client.call("get_profile_picture", group))["ID"] == picture_id
    await alice.person(bob).member_of(group).set(node("locked"))
    with pytest.raises(CallFailed, match="403: forbidden"):
        await alice.client.call("set_group_photo", group, {"data": JPEG_BASE64})


# --- invitations


async def test_joins_by_a_link(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await alice.control.create_group(bob, "Orchard", [])
    seen = await alice.client.call("get_group_info_from_link", group.invite_code)
    assert seen["GroupName"]["Name"] == "Orchard"
    joined = await alice.client.call("join_group_with_link", group.invite_code)
    assert f"{joined['User']}@g.us" == group.jid
    await alice.client.expect("joined", group="Orchard")
    assert (await alice.control.group(group.jid)).members == [bob, alice.pn]
    await alice.person(bob).member_of(group.jid).reset_invite()
    for method in ("get_group_info_from_link", "join_group_with_link"):
        with pytest.raises(CallFailed, match="that group invite link has been revoked"):
            await alice.client.call(method, group.invite_code)
        with pytest.raises(CallFailed, match="that group invite link is not valid"):
            await alice.client.call(method, "wrong")


async def test_shows_and_resets_the_link(alice: LinkedClient) -> None:
    group = await own_group(alice, bob := await alice.create())
    link = await alice.client.call("get_group_invite_link", group, False)
    assert await alice.client.call("get_group_invite_link", group, False) == link
    new = await alice.client.call("get_group_invite_link", group, True)
    assert new.endswith((await alice.control.group(group)).invite_code) and new != link
    carol = await alice.create("Carol")
    assert await alice.person(carol).join(new.rpartition("/")[2])
    assert (await alice.control.group(group)).members == [alice.pn, bob, carol]


async def test_an_admin_approves_who_joins(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await own_group(alice, bob)
    await alice.person().member_of(group).require_approval(required=True)
    code = (await alice.control.group(group)).invite_code
    carol, dan = await alice.create("Carol"), await alice.create("Dan")
    assert not await alice.person(carol).join(code)
    assert not await alice.person(dan).join(code)
    waiting = await alice.client.call("get_group_request_participants", group)
    assert [user(it["Participant"]) for it in waiting] == [await alice.lid(carol), await alice.lid(dan)]
    people = [
        node(decision, {}, node("participant", {"jid": (await alice.control.phone(pn)).lid}))
        for decision, pn in (("approve", carol), ("reject", dan))
    ]
    with pytest.raises(ControlError, match="403 forbidden"):
        await alice.person(bob).member_of(group).set(node("membership_requests_action", {}, *people))
    await alice.person().member_of(group).set(node("membership_requests_action", {}, *people))
    now = await alice.control.group(group)
    assert (now.members, now.requests) == ([alice.pn, bob, carol], [])


async def test_joining_may_need_an_approval(alice: LinkedClient) -> None:
    """The library returns the address in both cases."""
    bob = await alice.create()
    group = await alice.control.create_group(bob, "Orchard", [])
    await alice.person(bob).member_of(group.jid).require_approval(required=True)
    await alice.client.call("join_group_with_link", group.invite_code)
    now = await alice.control.group(group.jid)
    assert (now.members, now.requests) == ([bob], [alice.pn])


async def test_accepts_an_invitation(alice: LinkedClient) -> None:
    bob = await alice.create()
    await alice.person().set_privacy("groupadd", "none")
    try:
        group = (await alice.control.create_group(bob, "Orchard", [])).jid
        (answer,) = (
            await alice.person(bob)
            .member_of(group)
            .set(node("add", {}, node("participant", {"jid": (await alice.control.phone(alice.pn)).lid})))
        )
    finally:
        await alice.person().set_privacy("groupadd", "all")
    request = answer.children[0].find("add_request")
    assert request is not None and answer.children[0].text("error") == "403"
    invitation = (group, f"{bob}@s.whatsapp.net", request.text("code"), int(request.text("expiration")))
    assert (await alice.client.call("get_group_info_from_invite", *invitation))["GroupName"]["Name"] == "Orchard"
    with pytest.raises(CallFailed):
        await alice.client.call("join_group_with_invite", *invitation[:2], "wrong", invitation[3])
    await alice.client.call("join_group_with_invite", *invitation)
    assert (await alice.control.group(group)).members == [bob, alice.pn]


# --- communities


async def test_keeps_a_community(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    parent = {"message": "GroupParent", "fields": {"IsParent": True, "DefaultMembershipApprovalMode": ""}}
    made = await alice.client.call("create_group", "Village", [], {"plain": None}, parent)
    community = f"{made['JID']['User']}@g.us"
    garden = await own_group(alice, bob)
    await alice.client.call("link_group", community, garden)
    (announcements, linked) = await alice.client.call("get_sub_groups", community)
    assert announcements["GroupIsDefaultSub"]["IsDefaultSubGroup"]
    assert (f"{user(linked['JID'])}@g.us", linked["GroupName"]["Name"]) == (garden, "Garden")
    assert (await alice.control.group(garden)).parent == community
    assert (await alice.control.group(community)).members == [alice.pn, bob]
    info = await alice.client.call("get_group_info", garden)
    assert f"{info['GroupLinkedParent']['LinkedParentJID']['User']}@g.us" == community
    await change_members(alice, garden, "ADD", carol)
    announcement_group = f"{user(announcements['JID'])}@g.us"
    assert (await alice.control.group(announcement_group)).members == [alice.pn, bob, carol]
    (found,) = await alice.person(bob).ask("w:g2", "get", node("linked_groups_participants"), to=community)
    assert {it.text("phone_number").partition("@")[0] for it in found.children} == {alice.pn, bob, carol}
    await alice.client.call("unlink_group", community, garden)
    assert (await alice.control.group(garden)).parent == ""


async def test_only_admins_link_groups(alice: LinkedClient) -> None:
    bob = await alice.create()
    group = await own_group(alice, bob)
    with pytest.raises(CallFailed, match="400: bad-request"):
        await alice.client.call("link_group", group, await own_group(alice, bob))
    foreign = await alice.control.create_group(bob, "Secret", [])
    with pytest.raises(CallFailed, match="403: forbidden"):
        await alice.client.call("link_group", foreign.jid, group)
    with pytest.raises(CallFailed, match="403: forbidden"):
        await alice.client.call("get_sub_groups", foreign.jid)


async def test_a_community_has_its_members_in_common(alice: LinkedClient) -> None:
    bob, carol = await alice.create(), await alice.create("Carol")
    parent = {"message": "GroupParent", "fields": {"IsParent": True, "DefaultMembershipApprovalMode": ""}}
    made = await alice.client.call("create_group", "Village", [], {"plain": None}, parent)
    community = f"{made['JID']['User']}@g.us"
    linked = {"message": "GroupLinkedParent", "fields": {"LinkedParentJID": made["JID"]}}
    people = [f"{pn}@s.whatsapp.net" for pn in (bob, carol)]
    garden = f"{(await alice.client.call('create_group', 'Garden', people, linked))['JID']['User']}@g.us"
    assert [(await alice.control.group(it)).members for it in (community, garden)] == [[alice.pn, bob, carol]] * 2
    await alice.person(carol).member_of(garden).leave()
    assert carol in (await alice.control.group(community)).members, "the group is only a part"
    await alice.person(bob).member_of(community).leave()
    for address in (community, garden):
        assert bob not in (await alice.control.group(address)).members
    with pytest.raises(ControlError, match="403 forbidden"):
        await alice.person(bob).ask("w:g2", "get", node("sub_groups"), to=community)


# --- what a client would not send


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (node("add"), "400 bad-request"),
        (node("member_add_mode", {}, b"nobody"), "400 bad-request"),
        (node("membership_approval_mode", {}, node("group_join", {"state": "maybe"})), "400 bad-request"),
        (node("membership_requests_action", {}, node("postpone")), "400 bad-request"),
        (node("ephemeral", {"expiration": 17}), "400 bad-request"),
        (node("subject"), "406 not-acceptable"),
        (node("description", {"id": "A"}), "400 bad-request"),
        (node("description", {"id": "A"}, node("body", {}, b"x" * 2049)), "406 not-acceptable"),
        (node("accept", {"code": "wrong"}), "409 conflict"),
        (node("links", {}, node("link", {"link_type": "sub_group"})), "400 bad-request"),
        (node("colour"), "501 feature-not-implemented"),
    ],
    ids=lambda it: it.tag if hasattr(it, "tag") else it[:3],
)
async def test_refuses_malformed_changes(alice: LinkedClient, change: Node, refusal: str) -> None:
    group = await alice.control.create_group(bob := await alice.create(), "Garden", [])
    with pytest.raises(ControlError, match=refusal):
        await alice.person(bob).member_of(group.jid).set(change)
    assert await alice.control.group(group.jid) == group


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        (node("create", {"subject": "x" * 101}), "406 not-acceptable"),
        (node("create", {"subject": "Garden"}, node("ephemeral", {"expiration": 17})), "400 bad-request"),
        (node("leave"), "400 bad-request"),
        (node("leave", {}, node("group", {"id": Jid("1", GROUP_SERVER)})), "404 item-not-found"),
        (node("create", {}, node("linked_parent", {"jid": Jid("1", GROUP_SERVER)})), "404 item-not-found"),
    ],
    ids=lambda it: it.tag if hasattr(it, "tag") else it[:3],
)
async def test_refuses_malformed_queries(alice: LinkedClient, wanted: Node, refusal: str) -> None:
    before = await alice.control.groups()
    with pytest.raises(ControlError, match=refusal):
        await alice.person().ask("w:g2", "set", wanted, to=GROUP_SERVER)
    assert await alice.control.groups() == before
