"""Convert requests about groups to those of the session's process, and complete its results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from service.domain.contacts import PersonAddress
from service.domain.errors import ZapError
from service.protocol import page_tokens
from service.protocol.contacts import address_message
from service.protocol.field_masks import changed_fields
from service.protocol.parsing import refuse, wrong_page_token
from service.protocol.sending import recipient
from zap.v1 import group_service_pb2 as pb
from zap.v1 import session_pb2
from zap.worker.v1 import groups_pb2

SETTINGS = tuple(field.name for field in pb.GroupSettings.DESCRIPTOR.fields)
"""The fields of GroupSettings, in their order."""
_DEFAULT_PAGE_SIZE = 500
_MAX_PAGE_SIZE = 1000


@dataclass(frozen=True)
class People:
    """The people of a request, as it names them."""

    names: Sequence[str]

    @property
    def jids(self) -> Sequence[str]:
        """Return their JIDs, each once, in their order."""
        return list(dict.fromkeys(recipient(name) for name in self.names))

    def results(self, by_jid: Iterable[pb.ParticipantResult]) -> Sequence[pb.ParticipantResult]:
        """Return a result for each name. `by_jid`: one for each of `jids`."""
        of = dict(zip(self.jids, by_jid, strict=True))
        return [_named(of[recipient(name)], name) for name in self.names]


def list_groups(request: pb.ListGroupsRequest) -> groups_pb2.ListGroups:
    """Return the page that List requests."""
    after = ""
    if request.page_token:
        try:
            after = page_tokens.read(request.page_token, _filters(request))
        except ValueError as error:
            raise wrong_page_token() from error
    return groups_pb2.ListGroups(
        after=after,
        limit=min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE),
        with_participants=request.with_participants,
    )


def group_page(request: pb.ListGroupsRequest, page: groups_pb2.GroupPage) -> pb.ListGroupsResponse:
    """Return a page as callers get it."""
    token = page_tokens.write(_filters(request), page.groups[-1].jid) if page.has_more else ""
    return pb.ListGroupsResponse(groups=page.groups, next_page_token=token)


def settings_to_update(request: pb.UpdateGroupRequest) -> Sequence[str]:
    """Return the fields that Update requests to change."""
    fields = changed_fields(request.update_mask, request.settings, SETTINGS, "the settings")
    if not fields:
        raise refuse("update_mask", f"must name what to change: {', '.join(SETTINGS)}")
    if "name" in fields and not request.settings.name:
        raise refuse("settings.name", "must not be empty")
    return fields


def settings_after_creation(settings: pb.GroupSettings) -> Sequence[str]:
    """Return the fields to set once the group exists: those that differ from what a new group has."""
    given = {field.name for field, _ in settings.ListFields()} - {"name"}
    if not settings.disappear_after.seconds:
        given.discard("disappear_after")
    return [name for name in SETTINGS if name in given]


def copy_settings(values: pb.GroupSettings, fields: Iterable[str], to: pb.GroupSettings) -> None:
    """Copy these fields."""
    FieldMask(paths=fields).MergeMessage(values, to, replace_message_field=True)


def unset_reason(error: ZapError) -> session_pb2.Reason:
    """Return why a setting of a new group was not set."""
    return session_pb2.Reason(
        code=error.reason, message=error.message, user_action="Set it with GroupService.Update; the group exists."
    )


def invite_code(invite: str) -> str:
    """Return the code of an invite link, or of a code alone."""
    return invite.partition("?")[0].rpartition("/")[2]


def join_requests(
    found: pb.ListJoinRequestsResponse, addresses: Mapping[str, PersonAddress]
) -> pb.ListJoinRequestsResponse:
    """Return the requests to join with all that is known of the people's addresses. `addresses`: by JID."""
    completed = pb.ListJoinRequestsResponse()
    completed.CopyFrom(found)
    for request in completed.requests:
        request.address.CopyFrom(address_message(addresses[request.address.jid]))
    return completed


def _named(result: pb.ParticipantResult, name: str) -> pb.ParticipantResult:
    named = pb.ParticipantResult(participant=name)
    named.MergeFrom(result)
    return named


def _filters(request: pb.ListGroupsRequest) -> list[object]:
    return ["groups", request.session_id, request.with_participants]
