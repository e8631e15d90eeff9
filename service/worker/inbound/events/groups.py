"""Changes of groups. The invite link, which lets whoever has it in, is left out on purpose."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from neonize.proto import Neonize_pb2 as neonize

from service.worker.inbound.events.normalize import NAME, TEXT, attributes, person, told_each_time, told_once, words
from zap.v1 import event_pb2, group_pb2
from zap.worker.v1 import frames_pb2

_LINKS = {
    neonize.GroupLinkChange.PARENT: group_pb2.GroupLink.KIND_PARENT,
    neonize.GroupLinkChange.SUB: group_pb2.GroupLink.KIND_PART,
    neonize.GroupLinkChange.SIBLING: group_pb2.GroupLink.KIND_SIBLING,
}
_ASKED, _NO_LONGER_ASKING = "created_membership_requests", "revoked_membership_requests"
"""What the library passes on unread, and we read."""
_MOST_OTHERS = 20
_LARGEST = 1024 * 1024
"""Bytes of what is told: thousands of people, but a consumer's gRPC refuses four times as much."""


def changed(event: Any) -> frames_pb2.Frame | None:
    """What is new about a group; None if nothing is, or nobody knows which group it is."""
    news = group_pb2.GroupChanged(
        joined=_members(event.Join),
        left=_members(event.Leave),
        promoted=_members(event.Promote),
        demoted=_members(event.Demote),
        join_reason=words(event.JoinReason),
        is_invite_link_new=event.HasField("NewInviteLink"),
    )
    _tell_settings(event, news)
    _tell_relations(event, news)
    _tell_unread(event, news)
    if not event.JID.User or not news.ListFields():
        return None
    news.group, news.author = person(event.JID), person(event.Sender)
    _bound(news)
    return told_once(event.Timestamp, event_pb2.Event.TYPE_GROUP_CHANGED, group_changed=news)


def entered(event: Any) -> frames_pb2.Frame:
    """The account is in a group from now on. The library does not say since when, so every time is told."""
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
    news = group_pb2.GroupChanged(group=person(info.JID), author=person(event.Sender), entered=group)
    _bound(news)
    return told_each_time(event_pb2.Event.TYPE_GROUP_CHANGED, group_changed=news)


def _tell_settings(event: Any, news: group_pb2.GroupChanged) -> None:
    if event.HasField("Name"):
        news.name = words(event.Name.Name, NAME)
    if event.HasField("Topic"):
        news.topic = words(event.Topic.Topic, TEXT)
    if event.HasField("Locked"):
        news.is_locked = event.Locked.isLocked
    if event.HasField("Announce"):
        news.is_announcement = event.Announce.IsAnnounce
    if event.HasField("Ephemeral"):
        news.disappear_after.CopyFrom(_seconds(event.Ephemeral.DisappearingTimer if event.Ephemeral.IsEphemeral else 0))


def _tell_relations(event: Any, news: group_pb2.GroupChanged) -> None:
    if event.HasField("Link"):
        news.linked.CopyFrom(_link(event.Link))
    if event.HasField("Unlink"):
        news.unlinked.CopyFrom(_link(event.Unlink))
    if event.HasField("Delete"):
        news.deleted.CopyFrom(group_pb2.GroupDeleted(reason=words(event.Delete.DeletedReason)))


def _tell_unread(event: Any, news: group_pb2.GroupChanged) -> None:
    for change in event.UnknownChanges:
        match words(change.Tag):
            case tag if tag == _ASKED:
                news.asked_to_join.extend(_askers(change, event.Sender))
            case tag if tag == _NO_LONGER_ASKING:
                news.no_longer_asking.extend(_askers(change, event.Sender))
            case tag if len(news.others) < _MOST_OTHERS:
                news.others.append(tag)


def _bound(news: group_pb2.GroupChanged) -> None:
    """Leave people out, until it is no larger than it may be."""
    asking = (news.asked_to_join, news.no_longer_asking)
    for people in (news.entered.members, news.joined, news.left, news.promoted, news.demoted, *asking):
        while people and news.ByteSize() > _LARGEST:
            del people[len(people) // 2 :]
            news.is_truncated = True


def _askers(change: Any, author: Any) -> Iterable[group_pb2.GroupMember]:
    """Those who are named; a request that names nobody is the author's own."""
    named = [said for part in change.Nodes if (said := attributes(part)).get("jid")]
    if not named:
        return _members([author])
    others = [said.get("phone_number") or said.get("lid", "") for said in named]
    return [
        group_pb2.GroupMember(member=said["jid"], member_alternative=other)
        for said, other in zip(named, others, strict=True)
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
