"""GroupService over the wire, to a session's process that a test answers for."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details

from service.domain.call_failures import CallFailure
from service.ports.processes import CallFailed
from service.protocol.payloads import payload_of
from tests.fakes.serving import FakeService
from tests.pictures import jpeg
from tests.rpc.statuses import detail, error_info
from zap.v1 import address_pb2, session_pb2
from zap.v1 import group_service_pb2 as pb
from zap.v1.group_service_pb2_grpc import GroupServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.worker.v1 import groups_pb2

GROUP, COMMUNITY = "12036@g.us", "12099@g.us"
CODE = "AbCdEfGhIjKlMnOpQrStUv"
LINK = pb.InviteLink(link=f"https://chat.whatsapp.com/{CODE}")
ADA = address_pb2.Address(jid="222222@lid", phone="+4917612345678", lid="222222@lid")
CHESS = pb.Group(
    jid=GROUP,
    settings=pb.GroupSettings(name="Chess"),
    participant_count=1,
    participants=[pb.GroupParticipant(address=ADA, is_admin=True)],
)
Result = pb.ParticipantResult


class Wire:
    """A connected session, and a stub."""

    def __init__(self, service: FakeService, channel: grpc.Channel) -> None:
        self.owner = service.sessions.owner
        self.contacts = service.contacts
        self.groups = GroupServiceStub(channel)

    def answer(self, request: type[Message], result: Message) -> None:
        """What the session's process answers to a request."""
        self.owner.results[request.DESCRIPTOR.full_name] = payload_of(result)

    def refuse(self, request: Message, failure: CallFailed) -> None:
        """What the session's process fails with."""
        self.owner.answers[payload_of(request)] = failure

    def was_asked(self, *requests: Message) -> bool:
        """Whether the session's process was asked this and nothing else."""
        return self.owner.calls == [payload_of(request) for request in requests]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with FakeService() as service, service.channel() as channel:
        sessions = SessionServiceStub(channel)
        for session_id in ("a", "b"):
            sessions.Create(session_pb2.CreateRequest(session_id=session_id))
        service.do(service.sessions.pair, "a")
        yield Wire(service, channel)


def settings(*, days: int | None = None, **fields: str | bool) -> pb.GroupSettings:
    made = pb.GroupSettings()
    for name, value in fields.items():
        setattr(made, name, value)
    if days is not None:
        made.disappear_after.seconds = days * 86_400
    return made


def set_one(field: str, values: pb.GroupSettings) -> groups_pb2.SetGroupSetting:
    return groups_pb2.SetGroupSetting(group=GROUP, field=field, settings=values)


def not_allowed() -> CallFailed:
    return CallFailed("info query returned status 403", certain=True, kind=CallFailure.NOT_ALLOWED.name)


# --- Create


def test_a_group_is_created_with_a_result_for_each_person(wire: Wire) -> None:
    refused = Result(address=address_pb2.Address(jid="3@lid"), result=Result.RESULT_INVITATION_NEEDED, code=403)
    done = Result(address=ADA, result=Result.RESULT_DONE)
    wire.answer(groups_pb2.CreateGroup, groups_pb2.CreatedGroup(group=CHESS, results=[done, refused]))
    people = ["+4917612345678", "33333@lid", "4917612345678"]
    request = pb.CreateGroupRequest(session_id="a", settings=settings(name="Chess", days=0), participants=people)
    created = wire.groups.Create(request)
    assert created.group == CHESS
    assert [result.participant for result in created.results] == people
    assert [result.result for result in created.results] == [done.result, refused.result, done.result]
    assert created.results[2].address == ADA
    assert not created.unset_fields
    assert not created.HasField("unset_reason")
    jids = ["4917612345678@s.whatsapp.net", "33333@lid"]
    assert wire.was_asked(groups_pb2.CreateGroup(name="Chess", participants=jids))


def test_other_settings_are_set_once_the_group_exists(wire: Wire) -> None:
    wire.answer(groups_pb2.CreateGroup, groups_pb2.CreatedGroup(group=CHESS))
    wire.answer(groups_pb2.SetGroupSetting, Empty())
    wanted = settings(name="Chess", description="Mondays", is_locked=True, is_announcement=True, days=7)
    created = wire.groups.Create(pb.CreateGroupRequest(session_id="a", settings=wanted, is_community=True))
    assert created.group.settings == wanted
    fields = ("description", "is_locked", "is_announcement", "disappear_after")
    first = groups_pb2.CreateGroup(name="Chess", is_community=True)
    assert wire.was_asked(first, *(set_one(field, wanted) for field in fields))


def test_a_setting_that_fails_does_not_hide_that_the_group_exists(wire: Wire) -> None:
    wire.answer(groups_pb2.CreateGroup, groups_pb2.CreatedGroup(group=CHESS))
    wire.answer(groups_pb2.SetGroupSetting, Empty())
    wanted = settings(name="Chess", description="Mondays", is_locked=True, is_announcement=True)
    wire.refuse(set_one("is_locked", wanted), CallFailed("no answer", certain=False))
    created = wire.groups.Create(pb.CreateGroupRequest(session_id="a", settings=wanted, community=COMMUNITY))
    assert created.group.jid == GROUP
    assert created.group.settings == settings(name="Chess", description="Mondays")
    assert list(created.unset_fields) == ["is_locked", "is_announcement"]
    assert created.unset_reason.code == "WHATSAPP_SILENT"
    assert "Update" in created.unset_reason.user_action
    asked = groups_pb2.CreateGroup(name="Chess", community=COMMUNITY)
    assert wire.was_asked(asked, set_one("description", wanted), set_one("is_locked", wanted))


def test_a_creation_without_an_answer_is_of_unknown_outcome(wire: Wire) -> None:
    wire.owner.refuses_calls = CallFailed("no answer", certain=False)
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.Create(pb.CreateGroupRequest(session_id="a", settings=settings(name="Chess")))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error_info(caught.value).reason == "WHATSAPP_SILENT"


# --- Get, List


def test_a_group_is_returned_as_the_process_made_it(wire: Wire) -> None:
    wire.answer(groups_pb2.GetGroup, CHESS)
    assert wire.groups.Get(pb.GetGroupRequest(session_id="a", group=GROUP)) == CHESS
    assert wire.was_asked(groups_pb2.GetGroup(group=GROUP))


def test_groups_are_listed_page_by_page(wire: Wire) -> None:
    page = groups_pb2.GroupPage(groups=[pb.Group(jid=GROUP)], has_more=True)
    wire.answer(groups_pb2.ListGroups, page)
    request = pb.ListGroupsRequest(session_id="a", page_size=1, with_participants=True)
    first = wire.groups.List(request)
    assert list(first.groups) == [pb.Group(jid=GROUP)]
    page.has_more = False
    wire.answer(groups_pb2.ListGroups, page)
    request.page_token = first.next_page_token
    assert wire.groups.List(request).next_page_token == ""
    asked = groups_pb2.ListGroups(limit=1, with_participants=True)
    assert wire.was_asked(asked, groups_pb2.ListGroups(limit=1, with_participants=True, after=GROUP))
    # A token is one of its session and its filters.
    for other in ({"session_id": "b"}, {"with_participants": False}):
        with pytest.raises(grpc.RpcError) as caught:
            wire.groups.List(pb.ListGroupsRequest(**({"session_id": "a"} | other), page_token=request.page_token))
        assert detail(caught.value, details.BadRequest).field_violations[0].field == "page_token"


@pytest.mark.parametrize(("size", "limit"), [(0, 500), (1000, 1000), (5000, 1000)])
def test_a_page_has_a_size(wire: Wire, size: int, limit: int) -> None:
    wire.answer(groups_pb2.ListGroups, groups_pb2.GroupPage())
    assert wire.groups.List(pb.ListGroupsRequest(session_id="a", page_size=size)) == pb.ListGroupsResponse()
    assert wire.was_asked(groups_pb2.ListGroups(limit=limit))


# --- Update


def update(values: pb.GroupSettings, *paths: str) -> pb.UpdateGroupRequest:
    request = pb.UpdateGroupRequest(session_id="a", group=GROUP, settings=values)
    request.update_mask.paths.extend(paths)
    return request


@pytest.mark.parametrize(
    ("paths", "fields"),
    [
        ((), ["name", "is_announcement"]),
        (("is_announcement", "description"), ["description", "is_announcement"]),
        (("disappear_after", "is_locked"), ["is_locked", "disappear_after"]),
        (("*",), ["name", "description", "is_locked", "is_announcement", "disappear_after"]),
    ],
)
def test_the_mask_says_what_is_changed(wire: Wire, paths: tuple[str, ...], fields: list[str]) -> None:
    wire.answer(groups_pb2.SetGroupSetting, Empty())
    values = settings(name="Chess", is_announcement=True)
    assert wire.groups.Update(update(values, *paths)).updated_fields == fields
    assert wire.was_asked(*(set_one(field, values) for field in fields))


def test_an_update_that_fails_half_way_says_what_was_changed(wire: Wire) -> None:
    wire.answer(groups_pb2.SetGroupSetting, Empty())
    values = settings(name="Chess", description="Mondays", is_locked=True, is_announcement=True)
    wire.refuse(set_one("is_locked", values), not_allowed())
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.Update(update(values))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    info = error_info(caught.value)
    assert info.reason == "NOT_ALLOWED"
    assert (info.metadata["field"], info.metadata["updated_fields"]) == ("is_locked", "name,description")
    assert "changed before: name, description" in (caught.value.details() or "")
    assert len(wire.owner.calls) == 3


def test_an_update_that_fails_at_once_changed_nothing(wire: Wire) -> None:
    values = settings(name="Chess", is_locked=True)
    wire.refuse(set_one("name", values), not_allowed())
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.Update(update(values))
    assert error_info(caught.value).metadata["updated_fields"] == ""
    assert "changed before" not in (caught.value.details() or "")
    assert len(wire.owner.calls) == 1


@pytest.mark.parametrize(
    ("values", "paths", "field"),
    [
        (settings(), (), "update_mask"),
        (settings(name="x"), ("jid",), "update_mask"),
        (settings(description="x"), ("name",), "settings.name"),
        (settings(name="a\nb"), ("name",), "settings.name"),
        (settings(name="x" * 101), ("name",), "settings.name"),
        (settings(description="x" * 2049), (), "settings.description"),
        (settings(description="a\x1bb"), (), "settings.description"),
        (settings(days=2), (), "settings.disappear_after"),
    ],
)
def test_a_wrong_update_changes_nothing(
    wire: Wire, values: pb.GroupSettings, paths: tuple[str, ...], field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.Update(update(values, *paths))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(caught.value, details.BadRequest).field_violations[0].field == field
    assert wire.owner.calls == []


# --- people


def test_each_person_has_a_result(wire: Wire) -> None:
    results = [Result(address=ADA, result=Result.RESULT_DONE), Result(result=Result.RESULT_NOT_FOUND, code=404)]
    wire.answer(groups_pb2.UpdateParticipants, pb.UpdateParticipantsResponse(results=results))
    action = pb.UpdateParticipantsRequest.ACTION_PROMOTE
    people = ["+4917612345678", "33333@lid", "+4917612345678"]
    request = pb.UpdateParticipantsRequest(session_id="a", group=GROUP, action=action, participants=people)
    found = wire.groups.UpdateParticipants(request).results
    assert [(each.participant, each.result) for each in found] == [
        (people[0], Result.RESULT_DONE),
        (people[1], Result.RESULT_NOT_FOUND),
        (people[2], Result.RESULT_DONE),
    ]
    jids = ["4917612345678@s.whatsapp.net", "33333@lid"]
    assert wire.was_asked(groups_pb2.UpdateParticipants(group=GROUP, action=action, participants=jids))


def test_people_who_request_to_join_have_all_known_addresses(wire: Wire) -> None:
    wire.contacts.numbers["222222"] = "4917612345678"
    known, unknown = (pb.JoinRequest(address=address_pb2.Address(jid=jid)) for jid in ("222222@lid", "99999@lid"))
    known.request_time.seconds = 1_700_000_000
    wire.answer(groups_pb2.ListJoinRequests, pb.ListJoinRequestsResponse(requests=[known, unknown]))
    found = wire.groups.ListJoinRequests(pb.ListJoinRequestsRequest(session_id="a", group=GROUP)).requests
    assert [each.address for each in found] == [ADA, address_pb2.Address(jid="99999@lid", lid="99999@lid")]
    assert found[0].request_time.seconds == 1_700_000_000
    assert wire.was_asked(groups_pb2.ListJoinRequests(group=GROUP))


# --- pictures and invite links


def test_the_picture_is_set(wire: Wire) -> None:
    wire.answer(groups_pb2.SetGroupPicture, pb.SetGroupPictureResponse(picture_id="17"))
    request = pb.SetGroupPictureRequest(session_id="a", group=GROUP, jpeg=jpeg())
    assert wire.groups.SetPicture(request).picture_id == "17"
    assert wire.was_asked(groups_pb2.SetGroupPicture(group=GROUP, jpeg=jpeg()))


def test_a_picture_that_whatsapp_does_not_take_is_refused(wire: Wire) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.SetPicture(pb.SetGroupPictureRequest(session_id="a", group=GROUP, jpeg=jpeg(641, 641)))
    assert detail(caught.value, details.BadRequest).field_violations[0].field == "jpeg"
    assert wire.owner.calls == []


def test_the_invite_link_is_returned_and_reset(wire: Wire) -> None:
    wire.answer(groups_pb2.GetInviteLink, LINK)
    assert wire.groups.GetInviteLink(pb.GetInviteLinkRequest(session_id="a", group=GROUP)) == LINK
    assert wire.groups.ResetInviteLink(pb.ResetInviteLinkRequest(session_id="a", group=GROUP)) == LINK
    asked = groups_pb2.GetInviteLink(group=GROUP)
    assert wire.was_asked(asked, groups_pb2.GetInviteLink(group=GROUP, is_reset=True))


@pytest.mark.parametrize(
    "invite",
    [
        CODE,
        f"https://chat.whatsapp.com/{CODE}",
        f"https://chat.whatsapp.com/invite/{CODE}",
        f"https://chat.whatsapp.com/{CODE}?mode=ac_t&x=/y",
    ],
)
def test_a_link_in_any_form_is_shown_and_joined(wire: Wire, invite: str) -> None:
    wire.answer(groups_pb2.PreviewInvite, CHESS)
    joined = pb.JoinGroupResponse(group=GROUP, state=pb.JoinGroupResponse.STATE_WAITING_FOR_APPROVAL)
    wire.answer(groups_pb2.JoinGroup, joined)
    assert wire.groups.PreviewInvite(pb.PreviewInviteRequest(session_id="a", invite=invite)) == CHESS
    assert wire.groups.Join(pb.JoinGroupRequest(session_id="a", invite=invite)) == joined
    assert wire.was_asked(groups_pb2.PreviewInvite(code=CODE), groups_pb2.JoinGroup(code=CODE))


def test_a_group_is_left(wire: Wire) -> None:
    wire.answer(groups_pb2.LeaveGroup, Empty())
    assert wire.groups.Leave(pb.LeaveGroupRequest(session_id="a", group=GROUP)) == pb.LeaveGroupResponse()
    assert wire.was_asked(groups_pb2.LeaveGroup(group=GROUP))


# --- communities


def test_the_groups_of_a_community_are_listed(wire: Wire) -> None:
    found = pb.ListSubGroupsResponse(groups=[pb.SubGroup(jid=GROUP, name="Chess", is_default_sub_group=True)])
    wire.answer(groups_pb2.ListSubGroups, found)
    assert wire.groups.ListSubGroups(pb.ListSubGroupsRequest(session_id="a", community=COMMUNITY)) == found
    assert wire.was_asked(groups_pb2.ListSubGroups(group=COMMUNITY))


def test_a_group_is_linked_and_unlinked(wire: Wire) -> None:
    wire.answer(groups_pb2.LinkGroup, Empty())
    wire.groups.LinkGroup(pb.LinkGroupRequest(session_id="a", community=COMMUNITY, group=GROUP))
    wire.groups.UnlinkGroup(pb.UnlinkGroupRequest(session_id="a", community=COMMUNITY, group=GROUP))
    linked = groups_pb2.LinkGroup(community=COMMUNITY, group=GROUP)
    assert wire.was_asked(linked, groups_pb2.LinkGroup(community=COMMUNITY, group=GROUP, is_unlink=True))


# --- failures


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (CallFailure.GROUP_NOT_FOUND, grpc.StatusCode.NOT_FOUND),
        (CallFailure.INVITE_INVALID, grpc.StatusCode.NOT_FOUND),
        (CallFailure.NOT_IN_GROUP, grpc.StatusCode.FAILED_PRECONDITION),
        (CallFailure.REFUSED_BY_WHATSAPP, grpc.StatusCode.FAILED_PRECONDITION),
        (CallFailure.NOT_ALLOWED, grpc.StatusCode.PERMISSION_DENIED),
        (CallFailure.RATE_LIMITED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_refusal_has_its_reason(wire: Wire, failure: CallFailure, code: grpc.StatusCode) -> None:
    wire.owner.refuses_calls = CallFailed("words", certain=True, kind=failure.name)
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.Leave(pb.LeaveGroupRequest(session_id="a", group=GROUP))
    assert caught.value.code() is code
    assert error_info(caught.value).reason == failure.name


def test_a_session_that_is_not_connected_asks_nothing(wire: Wire) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        wire.groups.List(pb.ListGroupsRequest(session_id="b"))
    assert error_info(caught.value).reason == "SESSION_NOT_PAIRED"
