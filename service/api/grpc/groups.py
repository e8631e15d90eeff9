"""Serves zap.v1.GroupService: parses requests, asks the process of the session, converts results."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from service.api.grpc.context import Context, caller_of
from service.api.grpc.deadlines import remaining_time
from service.api.grpc.process_requests import TIMEOUT_S, ask
from service.domain.caller import Caller
from service.domain.errors import ZapError
from service.ports.contacts import ContactStore
from service.protocol import groups
from service.protocol.contacts import check_picture
from service.sessions.process_calls import ProcessCalls
from zap.v1 import group_service_pb2 as pb
from zap.v1.group_service_pb2_grpc import GroupServiceServicer
from zap.worker.v1 import groups_pb2

NAME = pb.DESCRIPTOR.services_by_name["GroupService"].full_name

_ResultT = TypeVar("_ResultT", bound=Message)


class _SettingFailed(Exception):
    """A setting could not be set; `done` were set before."""

    def __init__(self, field: str, done: Sequence[str], error: ZapError) -> None:
        super().__init__(field)
        self.field = field
        self.done = done
        self.error = error


class GroupServicer(GroupServiceServicer):
    """Asks the process of the session, several times where one call of WhatsApp does not do it."""

    def __init__(self, calls: ProcessCalls, contacts: Callable[[Caller], ContactStore]) -> None:
        self._calls = calls
        self._contacts = contacts

    async def Create(self, request: pb.CreateGroupRequest, context: Context) -> pb.CreateGroupResponse:
        deadline = time.monotonic() + remaining_time(context, TIMEOUT_S)
        people = groups.People(request.participants)
        asked = groups_pb2.CreateGroup(
            name=request.settings.name,
            participants=people.jids,
            is_community=request.is_community,
            community=request.community,
        )
        created = await self._ask(context, request.session_id, asked, groups_pb2.CreatedGroup)
        response = pb.CreateGroupResponse(group=created.group, results=people.results(created.results))
        done = fields = groups.settings_after_creation(request.settings)
        try:
            await self._set(context, request.session_id, created.group.jid, request.settings, fields, deadline)
        except _SettingFailed as failed:
            done = failed.done
            response.unset_fields.extend(fields[len(done) :])
            response.unset_reason.CopyFrom(groups.unset_reason(failed.error))
        groups.copy_settings(request.settings, done, response.group.settings)
        return response

    async def Get(self, request: pb.GetGroupRequest, context: Context) -> pb.Group:
        return await self._ask(context, request.session_id, groups_pb2.GetGroup(group=request.group), pb.Group)

    async def List(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:
        asked = groups.list_groups(request)
        return groups.group_page(request, await self._ask(context, request.session_id, asked, groups_pb2.GroupPage))

    async def Update(self, request: pb.UpdateGroupRequest, context: Context) -> pb.UpdateGroupResponse:
        deadline = time.monotonic() + remaining_time(context, TIMEOUT_S)
        fields = groups.settings_to_update(request)
        try:
            await self._set(context, request.session_id, request.group, request.settings, fields, deadline)
        except _SettingFailed as failed:
            before = f"; changed before: {', '.join(failed.done)}" if failed.done else ""
            failed.error.message = f"{failed.field}: {failed.error.message}{before}"
            failed.error.metadata |= {"field": failed.field, "updated_fields": ",".join(failed.done)}
            raise failed.error from failed
        return pb.UpdateGroupResponse(updated_fields=fields)

    async def UpdateParticipants(
        self, request: pb.UpdateParticipantsRequest, context: Context
    ) -> pb.UpdateParticipantsResponse:
        people = groups.People(request.participants)
        asked = groups_pb2.UpdateParticipants(group=request.group, action=request.action, participants=people.jids)
        found = await self._ask(context, request.session_id, asked, pb.UpdateParticipantsResponse)
        return pb.UpdateParticipantsResponse(results=people.results(found.results))

    async def SetPicture(self, request: pb.SetGroupPictureRequest, context: Context) -> pb.SetGroupPictureResponse:
        check_picture(request.jpeg)
        asked = groups_pb2.SetGroupPicture(group=request.group, jpeg=request.jpeg)
        return await self._ask(context, request.session_id, asked, pb.SetGroupPictureResponse)

    async def GetInviteLink(self, request: pb.GetInviteLinkRequest, context: Context) -> pb.InviteLink:
        asked = groups_pb2.GetInviteLink(group=request.group)
        return await self._ask(context, request.session_id, asked, pb.InviteLink)

    async def ResetInviteLink(self, request: pb.ResetInviteLinkRequest, context: Context) -> pb.InviteLink:
        asked = groups_pb2.GetInviteLink(group=request.group, is_reset=True)
        return await self._ask(context, request.session_id, asked, pb.InviteLink)

    async def PreviewInvite(self, request: pb.PreviewInviteRequest, context: Context) -> pb.Group:
        asked = groups_pb2.PreviewInvite(code=groups.invite_code(request.invite))
        return await self._ask(context, request.session_id, asked, pb.Group)

    async def Join(self, request: pb.JoinGroupRequest, context: Context) -> pb.JoinGroupResponse:
        asked = groups_pb2.JoinGroup(code=groups.invite_code(request.invite))
        return await self._ask(context, request.session_id, asked, pb.JoinGroupResponse)

    async def Leave(self, request: pb.LeaveGroupRequest, context: Context) -> pb.LeaveGroupResponse:
        await self._ask(context, request.session_id, groups_pb2.LeaveGroup(group=request.group), Empty)
        return pb.LeaveGroupResponse()

    async def ListJoinRequests(
        self, request: pb.ListJoinRequestsRequest, context: Context
    ) -> pb.ListJoinRequestsResponse:
        asked = groups_pb2.ListJoinRequests(group=request.group)
        found = await self._ask(context, request.session_id, asked, pb.ListJoinRequestsResponse)
        jids = [each.address.jid for each in found.requests]
        addresses = await self._contacts(caller_of(context)).addresses(request.session_id, jids)
        return groups.join_requests(found, dict(zip(jids, addresses, strict=True)))

    async def ListSubGroups(self, request: pb.ListSubGroupsRequest, context: Context) -> pb.ListSubGroupsResponse:
        asked = groups_pb2.ListSubGroups(group=request.community)
        return await self._ask(context, request.session_id, asked, pb.ListSubGroupsResponse)

    async def LinkGroup(self, request: pb.LinkGroupRequest, context: Context) -> pb.LinkGroupResponse:
        asked = groups_pb2.LinkGroup(community=request.community, group=request.group)
        await self._ask(context, request.session_id, asked, Empty)
        return pb.LinkGroupResponse()

    async def UnlinkGroup(self, request: pb.UnlinkGroupRequest, context: Context) -> pb.UnlinkGroupResponse:
        asked = groups_pb2.LinkGroup(community=request.community, group=request.group, is_unlink=True)
        await self._ask(context, request.session_id, asked, Empty)
        return pb.UnlinkGroupResponse()

    async def _ask(
        self, context: Context, session_id: str, asked: Message, result: type[_ResultT], timeout: float = TIMEOUT_S
    ) -> _ResultT:
        return await ask(self._calls, context, session_id, asked, result, timeout)

    async def _set(
        self,
        context: Context,
        session_id: str,
        group: str,
        settings: pb.GroupSettings,
        fields: Sequence[str],
        deadline: float,
    ) -> None:
        """Set these fields one after the other until a moment of time.monotonic(). Raise _SettingFailed."""
        for number, field in enumerate(fields):
            asked = groups_pb2.SetGroupSetting(group=group, field=field, settings=settings)
            try:
                await self._ask(context, session_id, asked, Empty, max(0.0, deadline - time.monotonic()))
            except ZapError as error:
                raise _SettingFailed(field, fields[:number], error) from error
