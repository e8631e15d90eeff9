"""Converts changes of groups. The invite link, with which any account could join, is left out on purpose."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from neonize.proto import Neonize_pb2 as neonize

from service.worker.inbound.events.normalize import NAME, TEXT, attributes, dated_frame, person, undated_frame, words
from zap.v1 import event_pb2, group_pb2
from zap.worker.v1 import frames_pb2

_LINKS = {
    neonize.GroupLinkChange.PARENT: group_pb2.GroupLink.KIND_PARENT,
    neonize.GroupLinkChange.SUB: group_pb2.GroupLink.KIND_PART,
    neonize.GroupLinkChange.SIBLING: group_pb2.GroupLink.KIND_SIBLING,
}
_REQUESTED, _WITHDRAWN = "created_membership_requests", "revoked_membership_requests"
"""Tags of changes that the library passes on without parsing them."""
_MAX_OTHERS = 20
_MAX_BYTES = 1024 * 1024
"""Maximum bytes of an event: thousands of members, and a quarter of what gRPC clients accept by default."""


def changed(event: Any) -> frames_pb2.Frame | None:
    """Convert a change of a group; return None if nothing is in it, or no group is named."""
    change = group_pb2.GroupChanged(
        joined=_members(event.Join),
        left=_members(event.Leave),
        promoted=_members(event.Promote),
        demoted=_members(event.Demote),
        join_reason=words(event.JoinReason),
        is_invite_link_new=event.HasField("NewInviteLink"),
    )
    _fill_settings(event, change)
    _fill_relations(event, change)
    _fill_unparsed(event, change)
    if not event.JID.User or not change.ListFields():
        return None
    change.group, change.author = person(event.JID), person(event.Sender)
    _bound(change)
    return dated_frame(event.Timestamp, event_pb2.Event.TYPE_GROUP_CHANGED, group_changed=change)


def entered(event: Any) -> frames_pb2.Frame:
    """Convert the entry of the account into a group. The library gives no time of it, so each delivery is an event."""
    info = event.GroupInfo
    disappears = info.GroupEphemeral.IsEphemeral
    group = group_pb2.GroupEntered(
        reason=words(event.Reason),
        name=words(info.GroupName.Name, NAME),
        topic=words(info.GroupTopic.Topic, TEXT),
        creator=person(info.OwnerJID),
        creator_alternative=_other(person(info.OwnerPN), person(info.OwnerJID)),
        is_locked=info.GroupLocked.isLocked,
        is_announcement=info.GroupAnnounce.IsAnnounce,
        is_community=info.GroupParent.IsParent,
        community=person(info.GroupLinkedParent.LinkedParentJID),
        disappear_after=_seconds(info.GroupEphemeral.DisappearingTimer) if disappears else None,
        members=map(_member, info.Participants),
    )
    change = group_pb2.GroupChanged(group=person(info.JID), author=person(event.Sender), entered=group)
    _bound(change)
    return undated_frame(event_pb2.Event.TYPE_GROUP_CHANGED, group_changed=change)


def _fill_settings(event: Any, change: group_pb2.GroupChanged) -> None:
    if event.HasField("Name"):
        change.name = words(event.Name.Name, NAME)
    if event.HasField("Topic"):
        change.topic = words(event.Topic.Topic, TEXT)
    if event.HasField("Locked"):
        change.is_locked = event.Locked.isLocked
    if event.HasField("Announce"):
        change.is_announcement = event.Announce.IsAnnounce
    if event.HasField("Ephemeral"):
        timer = event.Ephemeral.DisappearingTimer if event.Ephemeral.IsEphemeral else 0
        change.disappear_after.CopyFrom(_seconds(timer))


def _fill_relations(event: Any, change: group_pb2.GroupChanged) -> None:
    if event.HasField("Link"):
        change.linked.CopyFrom(_link(event.Link))
    if event.HasField("Unlink"):
        change.unlinked.CopyFrom(_link(event.Unlink))
    if event.HasField("Delete"):
        change.deleted.CopyFrom(group_pb2.GroupDeleted(reason=words(event.Delete.DeletedReason)))


def _fill_unparsed(event: Any, change: group_pb2.GroupChanged) -> None:
    for unparsed in event.UnknownChanges:
        match words(unparsed.Tag):
            case tag if tag == _REQUESTED:
                change.asked_to_join.extend(_requesters(unparsed, event.Sender))
            case tag if tag == _WITHDRAWN:
                change.no_longer_asking.extend(_requesters(unparsed, event.Sender))
            case tag if len(change.others) < _MAX_OTHERS:
                change.others.append(tag)


def _bound(change: group_pb2.GroupChanged) -> None:
    """Drop members until the event is no larger than _MAX_BYTES."""
    asking = (change.asked_to_join, change.no_longer_asking)
    for people in (change.entered.members, change.joined, change.left, change.promoted, change.demoted, *asking):
        while people and change.ByteSize() > _MAX_BYTES:
            del people[len(people) // 2 :]
            change.is_truncated = True


def _requesters(unparsed: Any, author: Any) -> Iterable[group_pb2.GroupMember]:
    """Return those who ask to join: the named people, or the author if none is named."""
    named = [values for node in unparsed.Nodes if (values := attributes(node)).get("jid")]
    if not named:
        return _members([author])
    others = [values.get("phone_number") or values.get("lid", "") for values in named]
    return [
        group_pb2.GroupMember(member=values["jid"], member_alternative=other)
        for values, other in zip(named, others, strict=True)
    ]


def _members(jids: Iterable[Any]) -> Iterable[group_pb2.GroupMember]:
    return [group_pb2.GroupMember(member=person(jid)) for jid in jids]


def _member(participant: Any) -> group_pb2.GroupMember:
    member = person(participant.JID)
    others = (person(participant.PhoneNumber), person(participant.LID))
    return group_pb2.GroupMember(
        member=member,
        member_alternative=next((other for other in others if _other(other, member)), ""),
        is_admin=participant.IsAdmin,
        is_creator=participant.IsSuperAdmin,
    )


def _other(address: str, known: str) -> str:
    return "" if address == known else address


def _link(change: Any) -> group_pb2.GroupLink:
    return group_pb2.GroupLink(
        kind=_LINKS.get(change.Type, group_pb2.GroupLink.KIND_UNSPECIFIED),
        group=person(change.Group.JID),
        name=words(change.Group.GroupName.Name, NAME),
        reason=words(change.UnlinkReason),
    )


def _seconds(seconds: int) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
