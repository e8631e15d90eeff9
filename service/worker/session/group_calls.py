"""Carries out the calls of zap/worker/v1/groups.proto."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from neonize.exc import GetGroupInfoError, GetJIDFromStoreError
from neonize.proto.Neonize_pb2 import GroupLinkedParent, GroupParent
from neonize.utils.enum import ParticipantChange

from service.domain.call_failures import CallFailure
from service.domain.contacts import LID_SERVER
from service.worker import errors
from service.worker.addresses import from_text, person_to_text
from service.worker.session import group_results
from service.worker.session.dispatch import DefinitelyNotDone
from zap.v1 import address_pb2, group_service_pb2
from zap.worker.v1 import groups_pb2

if TYPE_CHECKING:
    from service.worker.session.client import Client

_ACTION = group_service_pb2.UpdateParticipantsRequest
_JOIN = group_service_pb2.JoinGroupResponse
_ACTIONS = {
    _ACTION.ACTION_ADD: ParticipantChange.ADD,
    _ACTION.ACTION_REMOVE: ParticipantChange.REMOVE,
    _ACTION.ACTION_PROMOTE: ParticipantChange.PROMOTE,
    _ACTION.ACTION_DEMOTE: ParticipantChange.DEMOTE,
}
_NANOSECONDS = 1_000_000_000
_COMMUNITY = GroupParent(IsParent=True, DefaultMembershipApprovalMode="request_required")
"""People who are not in the community request to join its groups: whatsmeow's default."""


def methods(client: "Client") -> dict[type[Message], Callable[[Any], Message]]:
    """Return the methods by the type of their request."""
    calls = GroupCalls(client)
    return {
        groups_pb2.CreateGroup: calls.create,
        groups_pb2.GetGroup: calls.get,
        groups_pb2.ListGroups: calls.list,
        groups_pb2.SetGroupSetting: calls.set_setting,
        groups_pb2.UpdateParticipants: calls.update_participants,
        groups_pb2.SetGroupPicture: calls.set_picture,
        groups_pb2.GetInviteLink: calls.get_invite_link,
        groups_pb2.PreviewInvite: calls.preview_invite,
        groups_pb2.JoinGroup: calls.join,
        groups_pb2.LeaveGroup: calls.leave,
        groups_pb2.ListJoinRequests: calls.list_join_requests,
        groups_pb2.ListSubGroups: calls.list_sub_groups,
        groups_pb2.LinkGroup: calls.link,
    }


class GroupCalls:
    """Asks WhatsApp about groups, and changes them. Texts have no NUL: the library cuts them there."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @property
    def _library(self) -> Any:
        return self._client.library

    def create(self, request: groups_pb2.CreateGroup) -> groups_pb2.CreatedGroup:
        """Create a group or a community. WhatsApp creates another one at each call."""
        info = self._library.create_group(
            request.name,
            [from_text(person) for person in request.participants],
            GroupLinkedParent(LinkedParentJID=from_text(request.community)) if request.community else None,
            _COMMUNITY if request.is_community else None,
        )
        results = self._results(request.participants, info.Participants)
        return groups_pb2.CreatedGroup(group=group_results.group(info), results=results)

    def get(self, request: groups_pb2.GetGroup) -> group_service_pb2.Group:
        """Return a group with its members."""
        return group_results.group(self._library.get_group_info(from_text(request.group)))

    def list(self, request: groups_pb2.ListGroups) -> groups_pb2.GroupPage:
        """Return a page of the groups that the account is in. WhatsApp returns all of them at each call."""
        by_jid = {person_to_text(info.JID): info for info in self._library.get_joined_groups()}
        page = groups_pb2.GroupPage()
        size = 0
        for jid in sorted(jid for jid in by_jid if jid > request.after):
            group = group_results.group(by_jid[jid], with_participants=request.with_participants)
            size += group.ByteSize()
            if len(page.groups) == request.limit or (page.groups and size > group_results.LONGEST_BYTES):
                page.has_more = True
                break
            page.groups.append(group)
        return page

    def set_setting(self, request: groups_pb2.SetGroupSetting) -> Empty:
        """Change one setting."""
        group, settings, library = from_text(request.group), request.settings, self._library
        match request.field:
            case "name":
                library.set_group_name(group, settings.name)
            case "description":
                # Without the two ids, the library asks for the previous one and makes the new one.
                library.set_group_topic(group, "", "", settings.description)
            case "is_locked":
                library.set_group_locked(group, settings.is_locked)
            case "is_announcement":
                library.set_group_announce(group, settings.is_announcement)
            case "disappear_after":
                # Nanoseconds: of a timedelta the library makes a million times too little.
                library.set_disappearing_timer(group, settings.disappear_after.seconds * _NANOSECONDS)
            case unknown:
                raise DefinitelyNotDone(f"the session's process does not know the setting {unknown!r}")
        return Empty()

    def update_participants(
        self, request: groups_pb2.UpdateParticipants
    ) -> group_service_pb2.UpdateParticipantsResponse:
        """Add, remove, promote or demote people."""
        answers = self._library.update_group_participants(
            from_text(request.group), [from_text(person) for person in request.participants], _ACTIONS[request.action]
        )
        return group_service_pb2.UpdateParticipantsResponse(results=self._results(request.participants, answers))

    def set_picture(self, request: groups_pb2.SetGroupPicture) -> group_service_pb2.SetGroupPictureResponse:
        """Set the picture."""
        # Bytes only: neonize takes a text for a path or an address, and reads it.
        picture_id = self._library.set_group_photo(from_text(request.group), bytes(request.jpeg))
        return group_service_pb2.SetGroupPictureResponse(picture_id=picture_id)

    def get_invite_link(self, request: groups_pb2.GetInviteLink) -> group_service_pb2.InviteLink:
        """Return the invite link, or make a new one."""
        link = self._library.get_group_invite_link(from_text(request.group), revoke=request.is_reset)
        return group_service_pb2.InviteLink(link=link)

    def preview_invite(self, request: groups_pb2.PreviewInvite) -> group_service_pb2.Group:
        """Return the group of an invite link."""
        return group_results.group(self._library.get_group_info_from_link(request.code))

    def join(self, request: groups_pb2.JoinGroup) -> group_service_pb2.JoinGroupResponse:
        """Join a group, or request it: the library returns the same for both, so look whether the account is in."""
        joined = self._library.join_group_with_link(request.code)
        return _JOIN(group=person_to_text(joined), state=self._join_state(joined))

    def leave(self, request: groups_pb2.LeaveGroup) -> Empty:
        """Leave a group."""
        self._library.leave_group(from_text(request.group))
        return Empty()

    def list_join_requests(self, request: groups_pb2.ListJoinRequests) -> group_service_pb2.ListJoinRequestsResponse:
        """Return who requests to join."""
        found = self._library.get_group_request_participants(from_text(request.group))
        return group_service_pb2.ListJoinRequestsResponse(requests=map(group_results.join_request, found))

    def list_sub_groups(self, request: groups_pb2.ListSubGroups) -> group_service_pb2.ListSubGroupsResponse:
        """Return the groups of a community."""
        found = self._library.get_sub_groups(from_text(request.group))
        return group_service_pb2.ListSubGroupsResponse(groups=map(group_results.sub_group, found))

    def link(self, request: groups_pb2.LinkGroup) -> Empty:
        """Make a group part of a community, or take it out."""
        change = self._library.unlink_group if request.is_unlink else self._library.link_group
        change(from_text(request.community), from_text(request.group))
        return Empty()

    def _join_state(self, group: Any) -> "group_service_pb2.JoinGroupResponse.State.ValueType":
        try:
            info = self._library.get_group_info(group)
        except GetGroupInfoError as error:
            not_in = errors.call_failure(str(error)) is CallFailure.NOT_IN_GROUP
            return _JOIN.STATE_WAITING_FOR_APPROVAL if not_in else _JOIN.STATE_UNKNOWN
        device = self._client.device()
        own = {person_to_text(device.JID), person_to_text(device.LID)}
        members = (_addresses(participant) for participant in info.Participants if not participant.Error)
        is_in = any(not own.isdisjoint(addresses) for addresses in members)
        return _JOIN.STATE_JOINED if is_in else _JOIN.STATE_WAITING_FOR_APPROVAL

    def _results(self, people: Sequence[str], answers: Iterable[Any]) -> Iterable[group_service_pb2.ParticipantResult]:
        """Return a result for each person. WhatsApp may name a person by the other one of their two addresses."""
        by_address = {address: answer for answer in answers for address in _addresses(answer)}
        for person in people:
            jid = from_text(person)
            other = None if person in by_address else self._other_address(jid)
            answer = by_address.get(person_to_text(other) if other is not None else person)
            known = group_results.address(jid, *(() if other is None else (other,))) or address_pb2.Address()
            yield group_results.participant_result(answer, known)

    def _other_address(self, jid: Any) -> Any:
        """Return the LID of a number, or the number of a LID; None if the library does not know it."""
        look_up = self._library.get_pn_from_lid if jid.Server == LID_SERVER else self._library.get_lid_from_pn
        try:
            other = look_up(jid)
        except GetJIDFromStoreError:
            return None
        return other if other.User else None


def _addresses(participant: Any) -> set[str]:
    jids = (participant.JID, participant.LID, participant.PhoneNumber)
    return {person_to_text(jid) for jid in jids if jid.User}
