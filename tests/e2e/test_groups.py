"""GroupService: from a caller through the real library to the simulated WhatsApp.

tests/rpc has the conversions, and tests/unit/worker/test_group_calls.py each call of the library.
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.eventually import eventually
from tests.pictures import jpeg
from tests.service_process import ServiceProcess, error_info
from zap.v1 import group_service_pb2 as pb
from zap.v1.group_service_pb2_grpc import GroupServiceStub

if TYPE_CHECKING:
    from zap.v1.group_service_pb2_grpc import GroupServiceAsyncStub

Result = pb.ParticipantResult
Action = pb.UpdateParticipantsRequest
DAY_S = 86_400
UNUSED_NUMBER = "4915119999999"


@dataclass(frozen=True)
class Account:
    """A session, and who it is."""

    session_id: str
    phone: str
    node: ServiceProcess

    @property
    def groups(self) -> "GroupServiceAsyncStub":
        return GroupServiceStub(self.node.channel)

    async def create(self, name: str, *people: str, **fields: object) -> pb.CreateGroupResponse:
        request = pb.CreateGroupRequest(session_id=self.session_id, participants=people, **fields)  # type: ignore[arg-type]
        request.settings.name = name
        return await self.groups.Create(request)

    async def get(self, group: str) -> pb.Group:
        return await self.groups.Get(pb.GetGroupRequest(session_id=self.session_id, group=group))

    async def change(self, group: str, action: "Action.Action.ValueType", *people: str) -> Sequence[Result]:
        request = pb.UpdateParticipantsRequest(
            session_id=self.session_id, group=group, action=action, participants=people
        )
        return (await self.groups.UpdateParticipants(request)).results

    async def invite_link(self, group: str) -> str:
        return (await self.groups.GetInviteLink(pb.GetInviteLinkRequest(session_id=self.session_id, group=group))).link

    async def join(self, invite: str) -> pb.JoinGroupResponse:
        return await self.groups.Join(pb.JoinGroupRequest(session_id=self.session_id, invite=invite))


@pytest.fixture
async def anna(shared_node: ServiceProcess, simulator: SimulatorControl) -> Account:
    phone = await new_phone(simulator, "Anna")
    session_id = f"s{phone}"
    await pair(shared_node, simulator, session_id, phone)
    return Account(session_id, phone, shared_node)


async def reason_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The code and the reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error_info(error.value).reason


def phones(people: Iterable[pb.GroupParticipant]) -> list[str]:
    return [person.address.phone.removeprefix("+") for person in people]


async def test_a_group_is_created_with_its_settings_and_a_result_for_each_person(
    anna: Account, simulator: SimulatorControl
) -> None:
    bob, carol = await new_phone(simulator, "Bob"), await new_phone(simulator, "Carol")
    await simulator.person(carol).set_privacy("groupadd", "none")
    request = pb.CreateGroupRequest(session_id=anna.session_id, participants=[f"+{bob}", carol, UNUSED_NUMBER])
    settings = pb.GroupSettings(name="Chess", description="Mondays\n8 pm", is_locked=True, is_announcement=True)
    settings.disappear_after.seconds = DAY_S
    request.settings.CopyFrom(settings)
    created = await anna.groups.Create(request)
    assert [(each.participant, each.result, each.code) for each in created.results] == [
        (f"+{bob}", Result.RESULT_DONE, 0),
        (carol, Result.RESULT_INVITATION_NEEDED, 403),
        (UNUSED_NUMBER, Result.RESULT_NOT_FOUND, 404),
    ]
    assert created.results[0].address.lid == (await simulator.phone(bob)).lid
    assert created.results[1].invitation_code
    assert not created.unset_fields
    there = await simulator.group(created.group.jid)
    assert (there.subject, there.description, there.is_locked, there.is_announcement, there.expiration) == (
        "Chess",
        "Mondays\n8 pm",
        True,
        True,
        DAY_S,
    )
    group = await anna.get(created.group.jid)
    assert created.group.settings == group.settings == settings
    assert group.creator.phone == f"+{anna.phone}"
    assert group.name_author.lid == group.description_author.lid == group.creator.lid
    assert abs(group.create_time.seconds - there.created_at) <= 64
    assert phones(group.participants) == [anna.phone, bob]
    assert [(member.is_admin, member.is_creator) for member in group.participants] == [(True, True), (False, False)]
    expiry = created.results[1].invitation_expire_time.seconds
    assert 2 * DAY_S < expiry - there.created_at < 4 * DAY_S


async def test_a_creation_without_an_answer_may_have_been_made_and_is_found_in_the_list(
    anna: Account, simulator: SimulatorControl
) -> None:
    await simulator.hold_queries("w:g2", anna.phone)
    request = pb.CreateGroupRequest(session_id=anna.session_id, settings=pb.GroupSettings(name="Chess"))
    unknown = (grpc.StatusCode.DEADLINE_EXCEEDED, "WHATSAPP_SILENT")
    assert await reason_of(anna.groups.Create(request, timeout=3)) == unknown
    await simulator.release_queries()

    async def found() -> list[pb.Group]:
        listed = await anna.groups.List(pb.ListGroupsRequest(session_id=anna.session_id))
        return [group for group in listed.groups if group.settings.name == "Chess"]

    (group,) = await eventually(found, "the group")
    assert group.creator.phone == f"+{anna.phone}"


async def test_groups_are_listed_page_by_page(anna: Account, simulator: SimulatorControl) -> None:
    bob = await new_phone(simulator, "Bob")
    made = sorted([(await anna.create(name, bob)).group.jid for name in ("A", "B", "C")])
    request = pb.ListGroupsRequest(session_id=anna.session_id, page_size=2)
    first = await anna.groups.List(request)
    assert [group.jid for group in first.groups] == made[:2]
    assert [(group.participant_count, len(group.participants)) for group in first.groups] == [(2, 0), (2, 0)]
    request.page_token = first.next_page_token
    last = await anna.groups.List(request)
    assert ([group.jid for group in last.groups], last.next_page_token) == (made[2:], "")


async def test_a_list_longer_than_other_frames_comes_whole(anna: Account, simulator: SimulatorControl) -> None:
    bob, text = await new_phone(simulator, "Bob"), "😀" * 2_048
    for number in range(9):
        group = (await simulator.create_group(bob, f"Garden {number}", [anna.phone])).jid
        await simulator.person(bob).member_of(group).describe(text, "A")
    found = await anna.groups.List(pb.ListGroupsRequest(session_id=anna.session_id))
    assert [group.settings.description for group in found.groups] == [text] * 9
    assert found.ByteSize() > 64 * 1024


async def test_settings_are_updated_until_one_fails(anna: Account, simulator: SimulatorControl) -> None:
    bob = await new_phone(simulator, "Bob")
    group = (await anna.create("Chess", bob)).group.jid
    request = pb.UpdateGroupRequest(session_id=anna.session_id, group=group)
    request.settings.name = "Go"
    request.settings.is_locked = True
    request.update_mask.paths.extend(["is_locked", "name", "description"])
    assert (await anna.groups.Update(request)).updated_fields == ["name", "description", "is_locked"]
    there = await simulator.group(group)
    assert (there.subject, there.description, there.is_locked) == ("Go", "", True)
    # Of a group that another person leads, every member may change the name.
    other = (await simulator.create_group(bob, "Garden", [anna.phone])).jid
    request.group, request.settings.name = other, "Orchard"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await anna.groups.Update(request)
    info = error_info(error.value)
    assert info.reason == "NOT_ALLOWED"
    assert (info.metadata["field"], info.metadata["updated_fields"]) == ("is_locked", "name,description")
    there = await simulator.group(other)
    assert (there.subject, there.is_locked) == ("Orchard", False)


async def test_people_are_added_promoted_demoted_and_removed(anna: Account, simulator: SimulatorControl) -> None:
    bob, carol = await new_phone(simulator, "Bob"), await new_phone(simulator, "Carol")
    carols_lid = (await simulator.phone(carol)).lid
    group = (await anna.create("Chess")).group.jid
    results = await anna.change(group, Action.ACTION_ADD, bob, carols_lid, UNUSED_NUMBER, bob)
    assert [(each.participant, each.result) for each in results] == [
        (bob, Result.RESULT_DONE),
        (carols_lid, Result.RESULT_DONE),
        (UNUSED_NUMBER, Result.RESULT_NOT_FOUND),
        (bob, Result.RESULT_DONE),
    ]
    assert [each.result for each in await anna.change(group, Action.ACTION_ADD, bob)] == [Result.RESULT_ALREADY_MEMBER]
    for action, admins in ((Action.ACTION_PROMOTE, [anna.phone, bob]), (Action.ACTION_DEMOTE, [anna.phone])):
        assert [each.result for each in await anna.change(group, action, bob)] == [Result.RESULT_DONE]
        assert (await simulator.group(group)).admins == admins
    assert [each.result for each in await anna.change(group, Action.ACTION_REMOVE, bob)] == [Result.RESULT_DONE]
    assert (await simulator.group(group)).members == [anna.phone, carol]


async def test_who_is_no_admin_or_no_member_is_refused(anna: Account, simulator: SimulatorControl) -> None:
    bob = await new_phone(simulator, "Bob")
    group = (await simulator.create_group(bob, "Garden", [anna.phone])).jid
    foreign = (await simulator.create_group(bob, "Secret", [])).jid
    denied = (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert await reason_of(anna.change(group, Action.ACTION_REMOVE, bob)) == denied
    assert await reason_of(anna.invite_link(group)) == denied
    assert await reason_of(anna.get(foreign)) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_IN_GROUP")
    missing = (grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND")
    assert await reason_of(anna.get("99999@g.us")) == missing
    assert await reason_of(anna.change("99999@g.us", Action.ACTION_ADD, bob)) == missing


async def test_the_picture_is_set(anna: Account, simulator: SimulatorControl) -> None:
    group = (await anna.create("Chess")).group.jid
    request = pb.SetGroupPictureRequest(session_id=anna.session_id, group=group, jpeg=jpeg())
    assert (await anna.groups.SetPicture(request)).picture_id == (await simulator.group(group)).picture != ""


async def test_a_group_is_previewed_joined_and_left_by_its_link(anna: Account, simulator: SimulatorControl) -> None:
    bob = await new_phone(simulator, "Bob")
    group = await simulator.create_group(bob, "Garden", [])
    link = f"https://chat.whatsapp.com/{group.invite_code}"
    seen = await anna.groups.PreviewInvite(pb.PreviewInviteRequest(session_id=anna.session_id, invite=link))
    assert (seen.jid, seen.settings.name) == (group.jid, "Garden")
    joined = await anna.join(link)
    assert (joined.group, joined.state) == (group.jid, pb.JoinGroupResponse.STATE_JOINED)
    assert (await simulator.group(group.jid)).members == [bob, anna.phone]
    await anna.groups.Leave(pb.LeaveGroupRequest(session_id=anna.session_id, group=group.jid))
    assert (await simulator.group(group.jid)).members == [bob]
    invalid = (grpc.StatusCode.NOT_FOUND, "INVITE_INVALID")
    await simulator.person(bob).member_of(group.jid).reset_invite()
    assert await reason_of(anna.join(link)) == invalid
    wrong = pb.PreviewInviteRequest(session_id=anna.session_id, invite="AbCdEfGhIjKlMn")
    assert await reason_of(anna.groups.PreviewInvite(wrong)) == invalid


async def test_a_join_that_needs_an_approval_says_so(anna: Account, simulator: SimulatorControl) -> None:
    bob = await new_phone(simulator, "Bob")
    group = await simulator.create_group(bob, "Garden", [])
    await simulator.person(bob).member_of(group.jid).require_approval(required=True)
    assert (await anna.join(group.invite_code)).state == pb.JoinGroupResponse.STATE_WAITING_FOR_APPROVAL
    there = await simulator.group(group.jid)
    assert (there.members, there.requests) == ([bob], [anna.phone])


async def test_the_link_is_reset_and_requests_to_join_are_listed(anna: Account, simulator: SimulatorControl) -> None:
    group = (await anna.create("Chess")).group.jid
    link = await anna.invite_link(group)
    reset = pb.ResetInviteLinkRequest(session_id=anna.session_id, group=group)
    renewed = (await anna.groups.ResetInviteLink(reset)).link
    assert renewed != link
    assert await anna.invite_link(group) == renewed
    await simulator.person(anna.phone).member_of(group).require_approval(required=True)
    bob = await new_phone(simulator, "Bob")
    await simulator.person(bob).join(renewed.rpartition("/")[2])
    listing = pb.ListJoinRequestsRequest(session_id=anna.session_id, group=group)
    (waiting,) = (await anna.groups.ListJoinRequests(listing)).requests
    assert waiting.address.lid == (await simulator.phone(bob)).lid
    created = (await simulator.group(group)).created_at
    assert 0 <= waiting.request_time.seconds - created < 3600


async def test_a_community_has_groups(anna: Account, simulator: SimulatorControl) -> None:
    bob = await new_phone(simulator, "Bob")
    community = (await anna.create("Club", is_community=True)).group
    assert community.is_community
    within = (await anna.create("Chess", bob, community=community.jid)).group.jid
    linked = (await anna.create("Go", bob)).group.jid
    groups = {"session_id": anna.session_id, "community": community.jid, "group": linked}
    await anna.groups.LinkGroup(pb.LinkGroupRequest(**groups))
    listing = pb.ListSubGroupsRequest(session_id=anna.session_id, community=community.jid)
    announcements, *others = (await anna.groups.ListSubGroups(listing)).groups
    assert announcements.is_default_sub_group
    assert [(group.jid, group.name) for group in others] == [(within, "Chess"), (linked, "Go")]
    assert (await anna.get(within)).community == community.jid
    assert (await anna.get(announcements.jid)).is_default_sub_group
    await anna.groups.UnlinkGroup(pb.UnlinkGroupRequest(**groups))
    assert [group.jid for group in (await anna.groups.ListSubGroups(listing)).groups][1:] == [within]
