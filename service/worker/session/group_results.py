"""Converts what the library returns about groups to messages of zap/v1/group_service.proto."""

from typing import Any

from google.protobuf.duration_pb2 import Duration

from service.domain.contacts import LID_SERVER, NUMBER_SERVER, person_address
from service.worker.addresses import person_to_text
from service.worker.inbound.content.limits import moment
from service.worker.inbound.events.normalize import NAME, TEXT, person, words
from zap.v1 import address_pb2
from zap.v1 import group_service_pb2 as pb

LONGEST_BYTES = 3 * 1024 * 1024
"""Bytes of the longest group, and of the longest page of groups. Clients of gRPC accept 4 MiB by default."""
_RESULTS = {
    0: pb.ParticipantResult.RESULT_DONE,
    401: pb.ParticipantResult.RESULT_NOT_ALLOWED,
    403: pb.ParticipantResult.RESULT_NOT_ALLOWED,
    404: pb.ParticipantResult.RESULT_NOT_FOUND,
    409: pb.ParticipantResult.RESULT_ALREADY_MEMBER,
}
_MICROSECONDS = 1_000_000


def group(info: Any, *, with_participants: bool = True) -> pb.Group:
    """Convert a GroupInfo. Its participants include people who could not be added, which are no members."""
    members = [participant for participant in info.Participants if not participant.Error]
    converted = pb.Group(
        jid=person(info.JID),
        settings=_settings(info),
        creator=address(info.OwnerJID, info.OwnerPN),
        # The library gives a float of 32 bits. A time that is absent is the year 1, which is no moment.
        create_time=moment(int(info.GroupCreated)),
        name_author=address(info.GroupName.NameSetBy),
        name_time=moment(info.GroupName.NameSetAt),
        description_author=address(info.GroupTopic.TopicSetBy),
        description_time=moment(info.GroupTopic.TopicSetAt),
        is_community=info.GroupParent.IsParent,
        community=person(info.GroupLinkedParent.LinkedParentJID),
        is_default_sub_group=info.GroupIsDefaultSub.IsDefaultSubGroup,
        participant_count=len(members),
        participants=map(_participant, members) if with_participants else (),
    )
    _bound(converted)
    return converted


def participant_result(answer: Any, known: address_pb2.Address) -> pb.ParticipantResult:
    """Convert the library's GroupParticipant for one person, or None without one. `known`: the person's addresses."""
    if answer is None:
        return pb.ParticipantResult(address=known, result=pb.ParticipantResult.RESULT_NO_ANSWER)
    result = pb.ParticipantResult(
        address=address(answer.JID, answer.LID, answer.PhoneNumber) or known,
        result=_RESULTS.get(answer.Error, pb.ParticipantResult.RESULT_REFUSED),
        code=answer.Error,
    )
    if answer.Error and answer.HasField("AddRequest") and answer.AddRequest.Code:
        result.result = pb.ParticipantResult.RESULT_INVITATION_NEEDED
        result.invitation_code = words(answer.AddRequest.Code)
        if expiry := moment(int(answer.AddRequest.Expiration)):
            result.invitation_expire_time.CopyFrom(expiry)
    return result


def join_request(request: Any) -> pb.JoinRequest:
    """Convert a GroupParticipantRequest, whose time is in microseconds since 1970."""
    return pb.JoinRequest(
        address=address(request.Participant) or address_pb2.Address(),
        request_time=moment(request.TimeAt // _MICROSECONDS),
    )


def sub_group(target: Any) -> pb.SubGroup:
    """Convert a GroupLinkTarget."""
    return pb.SubGroup(
        jid=person(target.JID),
        name=words(target.GroupName.Name, NAME),
        is_default_sub_group=target.GroupIsDefaultSub.IsDefaultSubGroup,
    )


def address(*jids: Any) -> address_pb2.Address | None:
    """Return the addresses of a person by JIDs, of which any may be absent; None if all are."""
    users = {jid.Server: jid.User for jid in reversed(jids) if jid.User}
    if not users:
        return None
    if users.keys().isdisjoint({NUMBER_SERVER, LID_SERVER}):
        return address_pb2.Address(jid=next(person_to_text(jid) for jid in jids if jid.User))
    known = person_address(words(users.get(NUMBER_SERVER, "")), words(users.get(LID_SERVER, "")))
    return address_pb2.Address(jid=known.jid, phone=known.phone, lid=known.lid)


def _settings(info: Any) -> pb.GroupSettings:
    disappears = info.GroupEphemeral.IsEphemeral
    return pb.GroupSettings(
        name=words(info.GroupName.Name, NAME),
        description=words(info.GroupTopic.Topic, TEXT),
        is_locked=info.GroupLocked.isLocked,
        is_announcement=info.GroupAnnounce.IsAnnounce,
        disappear_after=Duration(seconds=info.GroupEphemeral.DisappearingTimer) if disappears else None,
    )


def _participant(participant: Any) -> pb.GroupParticipant:
    return pb.GroupParticipant(
        address=address(participant.JID, participant.LID, participant.PhoneNumber),
        is_admin=participant.IsAdmin,
        is_creator=participant.IsSuperAdmin,
        display_name=words(participant.DisplayName, NAME),
    )


def _bound(converted: pb.Group) -> None:
    """Drop the last members until the group is no longer than LONGEST_BYTES."""
    while converted.participants and (size := converted.ByteSize()) > LONGEST_BYTES:
        del converted.participants[len(converted.participants) * LONGEST_BYTES // size :]
        converted.is_truncated = True
