"""What the calls of groups.proto ask of the library, and what they make of its answers."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from neonize.exc import GetGroupInfoError, GetJIDFromStoreError
from neonize.proto import Neonize_pb2 as neonize
from neonize.utils.enum import ParticipantChange

from service.wire.framing import LONGEST_REPLY_BYTES
from service.worker.addresses import from_text
from service.worker.session import group_calls
from service.worker.session.client import Client
from service.worker.session.dispatch import DefinitelyNotDone
from zap.v1 import address_pb2
from zap.v1 import group_service_pb2 as groups
from zap.worker.v1 import groups_pb2 as pb

GROUP, COMMUNITY = "12036@g.us", "12099@g.us"
ANNA, ANNA_LID = "4915100000001@s.whatsapp.net", "111@lid"
BOB, BOB_LID = "4915100000002@s.whatsapp.net", "222@lid"
ANNA_ADDRESS = address_pb2.Address(jid=ANNA_LID, phone="+4915100000001", lid=ANNA_LID)
BOB_ADDRESS = address_pb2.Address(jid=BOB_LID, phone="+4915100000002", lid=BOB_LID)
ABSENT = -62135596800
"""Go's time without a value, in seconds since 1970."""
NO_JID = neonize.JID(User="", Server="", RawAgent=0, Device=0, Integrator=0, IsEmpty=True)
Result = groups.ParticipantResult


class Library:
    """Stands in for neonize's client: answers with what a test sets, and remembers the calls."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {
            "get_lid_from_pn": GetJIDFromStoreError("no"),
            "get_pn_from_lid": GetJIDFromStoreError("no"),
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*arguments: Any, **named: Any) -> Any:
            self.called.append((name, *arguments, *named.values()))
            found = self.answers.get(name)
            if isinstance(found, Exception):
                raise found
            return found

        return answer


Call = Callable[[Message], Any]


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def call(library: Library) -> Call:
    """The account is Anna's."""
    own = SimpleNamespace(JID=from_text(ANNA.replace("@", ":3@")), LID=from_text(ANNA_LID.replace("@", ":3@")))
    client = SimpleNamespace(library=library, device=lambda: own)
    methods = group_calls.methods(cast("Client", client))
    return lambda request: methods[type(request)](request)


def participant(jid: str, number: str = "", lid: str = "", **fields: Any) -> neonize.GroupParticipant:
    values = {"IsAdmin": False, "IsSuperAdmin": False, "DisplayName": "", "Error": 0} | fields
    return neonize.GroupParticipant(
        JID=from_text(jid),
        PhoneNumber=from_text(number) if number else NO_JID,
        LID=from_text(lid) if lid else NO_JID,
        **values,
    )


ANNA_MEMBER = participant(ANNA_LID, ANNA, ANNA_LID, IsAdmin=True, IsSuperAdmin=True)


def info(jid: str = GROUP, participants: Iterable[neonize.GroupParticipant] = (), **fields: Any) -> neonize.GroupInfo:
    """A GroupInfo as the library gives it, of a group without anything that can be absent."""
    found = neonize.GroupInfo(
        OwnerJID=NO_JID,
        OwnerPN=NO_JID,
        JID=from_text(jid),
        GroupName=neonize.GroupName(Name="", NameSetAt=ABSENT, NameSetBy=NO_JID),
        GroupTopic=neonize.GroupTopic(Topic="", TopicID="", TopicSetAt=ABSENT, TopicSetBy=NO_JID, TopicDeleted=False),
        GroupCreated=ABSENT,
        Participants=participants,
    )
    for name, value in fields.items():
        getattr(found, name).CopyFrom(value)
    return found


def test_a_group_has_what_the_library_says(library: Library, call: Call) -> None:
    found = info(
        participants=[
            ANNA_MEMBER,
            participant(BOB, "", BOB_LID, DisplayName="+49 151 •••"),
            participant("49152@s.whatsapp.net", Error=403),
        ],
        OwnerJID=from_text(ANNA_LID),
        OwnerPN=from_text(ANNA),
        GroupName=neonize.GroupName(Name="Chess", NameSetAt=1_700_000_000, NameSetBy=from_text(BOB_LID)),
        GroupTopic=neonize.GroupTopic(
            Topic="Mondays", TopicID="7", TopicSetAt=1_700_000_001, TopicSetBy=from_text(BOB), TopicDeleted=False
        ),
        GroupLocked=neonize.GroupLocked(isLocked=True),
        GroupAnnounce=neonize.GroupAnnounce(IsAnnounce=True),
        GroupEphemeral=neonize.GroupEphemeral(IsEphemeral=True, DisappearingTimer=86_400),
        GroupLinkedParent=neonize.GroupLinkedParent(LinkedParentJID=from_text(COMMUNITY)),
        GroupIsDefaultSub=neonize.GroupIsDefaultSub(IsDefaultSubGroup=True),
    )
    found.GroupCreated = 1_699_999_999
    library.answers["get_group_info"] = found
    group = call(pb.GetGroup(group=GROUP))
    assert library.called == [("get_group_info", from_text(GROUP))]
    assert (group.jid, group.community, group.is_community, group.is_default_sub_group) == (
        GROUP,
        COMMUNITY,
        False,
        True,
    )
    settings = groups.GroupSettings(name="Chess", description="Mondays", is_locked=True, is_announcement=True)
    settings.disappear_after.seconds = 86_400
    assert group.settings == settings
    assert group.creator == ANNA_ADDRESS
    # A float of 32 bits: between 2004 and 2038 it has steps of 64 or 128 s.
    assert abs(group.create_time.seconds - 1_699_999_999) <= 64
    assert (group.name_author.lid, group.name_time.seconds) == (BOB_LID, 1_700_000_000)
    assert (group.description_author.phone, group.description_time.seconds) == ("+4915100000002", 1_700_000_001)
    assert list(group.participants) == [
        groups.GroupParticipant(address=ANNA_ADDRESS, is_admin=True, is_creator=True),
        groups.GroupParticipant(address=BOB_ADDRESS, display_name="+49 151 •••"),
    ]
    assert (group.participant_count, group.is_truncated) == (2, False)


def test_what_is_absent_is_not_set(library: Library, call: Call) -> None:
    library.answers["get_group_info"] = info()
    assert call(pb.GetGroup(group=GROUP)) == groups.Group(jid=GROUP, settings=groups.GroupSettings())


def test_a_member_without_number_and_lid_keeps_its_address(library: Library, call: Call) -> None:
    library.answers["get_group_info"] = info(participants=[participant("99@hosted")])
    (member,) = call(pb.GetGroup(group=GROUP)).participants
    assert member.address == address_pb2.Address(jid="99@hosted")


def crowded(jid: str, count: int) -> neonize.GroupInfo:
    """A group with so many members of some 60 bytes each."""
    people = (
        participant(f"{10**14 + number}@lid", f"{491510000000 + number}@s.whatsapp.net") for number in range(count)
    )
    return info(jid, people)


def test_a_group_of_two_thousand_members_is_whole(library: Library, call: Call) -> None:
    library.answers["get_group_info"] = crowded(GROUP, 2_000)
    group = call(pb.GetGroup(group=GROUP))
    assert (len(group.participants), group.participant_count, group.is_truncated) == (2_000, 2_000, False)
    assert 64 * 1024 < group.ByteSize() < 200_000


def test_a_group_that_is_too_long_says_that_members_are_missing(library: Library, call: Call) -> None:
    library.answers["get_group_info"] = crowded(GROUP, 60_000)
    group = call(pb.GetGroup(group=GROUP))
    assert group.is_truncated
    assert group.participant_count == 60_000
    assert 30_000 < len(group.participants) < 60_000
    assert group.participants[0].address.lid == "100000000000000@lid"
    assert group.ByteSize() < LONGEST_REPLY_BYTES


def test_groups_come_page_by_page_in_the_order_of_their_jids(library: Library, call: Call) -> None:
    library.answers["get_joined_groups"] = [info(f"{number}@g.us", [ANNA_MEMBER]) for number in (33333, 11111, 22222)]
    first = call(pb.ListGroups(limit=2))
    assert [group.jid for group in first.groups] == ["11111@g.us", "22222@g.us"]
    assert first.has_more
    assert [(group.participant_count, len(group.participants)) for group in first.groups] == [(1, 0), (1, 0)]
    last = call(pb.ListGroups(limit=2, after="22222@g.us", with_participants=True))
    assert [(group.jid, len(group.participants)) for group in last.groups] == [("33333@g.us", 1)]
    assert not last.has_more
    assert call(pb.ListGroups(limit=2, after="33333@g.us")) == pb.GroupPage()


def test_a_page_ends_before_it_is_too_long(library: Library, call: Call) -> None:
    library.answers["get_joined_groups"] = [crowded(f"{number}@g.us", 20_000) for number in (11111, 22222, 33333)]
    first = call(pb.ListGroups(limit=1000, with_participants=True))
    assert [group.jid for group in first.groups] == ["11111@g.us", "22222@g.us"]
    assert first.has_more
    assert first.ByteSize() < LONGEST_REPLY_BYTES
    last = call(pb.ListGroups(limit=1000, after="22222@g.us", with_participants=True))
    assert [group.jid for group in last.groups] == ["33333@g.us"]
    assert not last.has_more


def test_a_group_is_created_with_a_result_for_each_person(library: Library, call: Call) -> None:
    request = neonize.GroupParticipantAddRequest(Code="abc", Expiration=1_800_000_000)
    library.answers["create_group"] = info(
        participants=[
            ANNA_MEMBER,
            participant(BOB_LID, BOB, BOB_LID),
            participant("333@lid", "49153@s.whatsapp.net", "333@lid", Error=403, AddRequest=request),
            participant("49154@s.whatsapp.net", Error=403),
            participant("49155@s.whatsapp.net", Error=404),
            participant("49156@s.whatsapp.net", Error=409),
            participant("49157@s.whatsapp.net", Error=500),
        ]
    )
    people = [BOB, "333@lid", *(f"4915{digit}@s.whatsapp.net" for digit in "45678")]
    created = call(pb.CreateGroup(name="Chess", participants=people))
    assert library.called[0] == ("create_group", "Chess", [from_text(person) for person in people], None, None)
    assert [member.address for member in created.group.participants] == [ANNA_ADDRESS, BOB_ADDRESS]
    assert [(each.result, each.code) for each in created.results] == [
        (Result.RESULT_DONE, 0),
        (Result.RESULT_INVITATION_NEEDED, 403),
        (Result.RESULT_NOT_ALLOWED, 403),
        (Result.RESULT_NOT_FOUND, 404),
        (Result.RESULT_ALREADY_MEMBER, 409),
        (Result.RESULT_REFUSED, 500),
        (Result.RESULT_NO_ANSWER, 0),
    ]
    assert created.results[0].address == BOB_ADDRESS
    invited = created.results[1]
    assert invited.address == address_pb2.Address(jid="333@lid", phone="+49153", lid="333@lid")
    assert invited.invitation_code == "abc"
    assert abs(invited.invitation_expire_time.seconds - 1_800_000_000) <= 64
    assert created.results[6].address == address_pb2.Address(jid="49158@s.whatsapp.net", phone="+49158")


def test_a_community_and_a_group_within_it_are_created(library: Library, call: Call) -> None:
    library.answers["create_group"] = info(
        GroupParent=neonize.GroupParent(IsParent=True, DefaultMembershipApprovalMode="")
    )
    assert call(pb.CreateGroup(name="Club", is_community=True)).group.is_community
    call(pb.CreateGroup(name="Chess", community=COMMUNITY))
    (_, _, _, no_parent, community), (_, _, _, parent, no_community) = library.called
    assert (no_parent, no_community) == (None, None)
    assert community.IsParent
    assert parent.LinkedParentJID == from_text(COMMUNITY)


@pytest.mark.parametrize(
    ("field", "called"),
    [
        ("name", ("set_group_name", from_text(GROUP), "Chess")),
        ("description", ("set_group_topic", from_text(GROUP), "", "", "Mondays\n8 pm")),
        ("is_locked", ("set_group_locked", from_text(GROUP), True)),
        ("is_announcement", ("set_group_announce", from_text(GROUP), True)),
        ("disappear_after", ("set_disappearing_timer", from_text(GROUP), 86_400 * 10**9)),
    ],
)
def test_a_setting_is_set(library: Library, call: Call, field: str, called: tuple[Any, ...]) -> None:
    settings = groups.GroupSettings(name="Chess", description="Mondays\n8 pm", is_locked=True, is_announcement=True)
    settings.disappear_after.seconds = 86_400
    assert call(pb.SetGroupSetting(group=GROUP, field=field, settings=settings)) == Empty()
    assert library.called == [called]


def test_a_setting_of_another_release_is_certainly_not_set(library: Library, call: Call) -> None:
    with pytest.raises(DefinitelyNotDone):
        call(pb.SetGroupSetting(group=GROUP, field="colour"))
    assert library.called == []


@pytest.mark.parametrize(
    ("action", "change"),
    [
        (groups.UpdateParticipantsRequest.ACTION_ADD, ParticipantChange.ADD),
        (groups.UpdateParticipantsRequest.ACTION_REMOVE, ParticipantChange.REMOVE),
        (groups.UpdateParticipantsRequest.ACTION_PROMOTE, ParticipantChange.PROMOTE),
        (groups.UpdateParticipantsRequest.ACTION_DEMOTE, ParticipantChange.DEMOTE),
    ],
)
def test_people_are_changed(library: Library, call: Call, action: Any, change: ParticipantChange) -> None:
    library.answers["update_group_participants"] = [participant(BOB_LID, BOB)]
    found = call(pb.UpdateParticipants(group=GROUP, action=action, participants=[BOB]))
    assert library.called == [("update_group_participants", from_text(GROUP), [from_text(BOB)], change)]
    assert list(found.results) == [Result(address=BOB_ADDRESS, result=Result.RESULT_DONE)]


@pytest.mark.parametrize(
    ("asked", "answered", "look_up"), [(BOB, BOB_LID, "get_lid_from_pn"), (BOB_LID, BOB, "get_pn_from_lid")]
)
def test_an_answer_by_the_other_address_is_found(
    library: Library, call: Call, asked: str, answered: str, look_up: str
) -> None:
    library.answers[look_up] = from_text(answered)
    library.answers["update_group_participants"] = [participant(answered)]
    action = groups.UpdateParticipantsRequest.ACTION_REMOVE
    (result,) = call(pb.UpdateParticipants(group=GROUP, action=action, participants=[asked])).results
    assert result.result == Result.RESULT_DONE


@pytest.mark.parametrize("unknown", [NO_JID, GetJIDFromStoreError("no")])
def test_a_person_whom_the_answer_leaves_out_has_no_answer(library: Library, call: Call, unknown: Any) -> None:
    library.answers["get_lid_from_pn"] = unknown
    library.answers["update_group_participants"] = [participant(ANNA_LID)]
    action = groups.UpdateParticipantsRequest.ACTION_ADD
    (result,) = call(pb.UpdateParticipants(group=GROUP, action=action, participants=[BOB])).results
    assert result == Result(
        address=address_pb2.Address(jid=BOB, phone="+4915100000002"), result=Result.RESULT_NO_ANSWER
    )


def test_the_picture_is_bytes(library: Library, call: Call) -> None:
    library.answers["set_group_photo"] = "17"
    assert call(pb.SetGroupPicture(group=GROUP, jpeg=b"\xff\xd8")).picture_id == "17"
    assert library.called == [("set_group_photo", from_text(GROUP), b"\xff\xd8")]


@pytest.mark.parametrize("is_reset", [False, True])
def test_the_invite_link_is_returned_or_made_anew(library: Library, call: Call, is_reset: bool) -> None:
    library.answers["get_group_invite_link"] = "https://chat.whatsapp.com/abc"
    assert call(pb.GetInviteLink(group=GROUP, is_reset=is_reset)).link == "https://chat.whatsapp.com/abc"
    assert library.called == [("get_group_invite_link", from_text(GROUP), is_reset)]


def test_an_invite_link_shows_its_group(library: Library, call: Call) -> None:
    library.answers["get_group_info_from_link"] = info(participants=[ANNA_MEMBER])
    assert call(pb.PreviewInvite(code="abc")).jid == GROUP
    assert library.called == [("get_group_info_from_link", "abc")]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (info(participants=[ANNA_MEMBER]), groups.JoinGroupResponse.STATE_JOINED),
        (info(participants=[participant(ANNA)]), groups.JoinGroupResponse.STATE_JOINED),
        (info(participants=[participant(BOB_LID, BOB)]), groups.JoinGroupResponse.STATE_WAITING_FOR_APPROVAL),
        (
            GetGroupInfoError("you're not participating in that group"),
            groups.JoinGroupResponse.STATE_WAITING_FOR_APPROVAL,
        ),
        (GetGroupInfoError("info query timed out"), groups.JoinGroupResponse.STATE_UNKNOWN),
    ],
)
def test_a_join_says_whether_the_account_is_in(library: Library, call: Call, answer: Any, state: Any) -> None:
    library.answers |= {"join_group_with_link": from_text(GROUP), "get_group_info": answer}
    assert call(pb.JoinGroup(code="abc")) == groups.JoinGroupResponse(group=GROUP, state=state)
    assert library.called == [("join_group_with_link", "abc"), ("get_group_info", from_text(GROUP))]


def test_a_group_is_left(library: Library, call: Call) -> None:
    call(pb.LeaveGroup(group=GROUP))
    assert library.called == [("leave_group", from_text(GROUP))]


def test_the_time_of_a_request_to_join_is_in_microseconds(library: Library, call: Call) -> None:
    library.answers["get_group_request_participants"] = [
        neonize.GroupParticipantRequest(Participant=from_text(BOB_LID), TimeAt=1_700_000_000_000_000),
        neonize.GroupParticipantRequest(Participant=from_text(ANNA_LID), TimeAt=0),
    ]
    first, second = call(pb.ListJoinRequests(group=GROUP)).requests
    assert (first.address.jid, first.request_time.seconds) == (BOB_LID, 1_700_000_000)
    assert (second.address.jid, second.HasField("request_time")) == (ANNA_LID, False)


def test_the_groups_of_a_community_are_listed(library: Library, call: Call) -> None:
    library.answers["get_sub_groups"] = [
        neonize.GroupLinkTarget(
            JID=from_text(GROUP),
            GroupName=neonize.GroupName(Name="Chess", NameSetAt=ABSENT, NameSetBy=NO_JID),
            GroupIsDefaultSub=neonize.GroupIsDefaultSub(IsDefaultSubGroup=True),
        )
    ]
    (found,) = call(pb.ListSubGroups(group=COMMUNITY)).groups
    assert found == groups.SubGroup(jid=GROUP, name="Chess", is_default_sub_group=True)
    assert library.called == [("get_sub_groups", from_text(COMMUNITY))]


@pytest.mark.parametrize(("is_unlink", "name"), [(False, "link_group"), (True, "unlink_group")])
def test_a_group_is_linked_and_unlinked(library: Library, call: Call, is_unlink: bool, name: str) -> None:
    call(pb.LinkGroup(community=COMMUNITY, group=GROUP, is_unlink=is_unlink))
    assert library.called == [(name, from_text(COMMUNITY), from_text(GROUP))]
