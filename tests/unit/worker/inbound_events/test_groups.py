"""What the e2e tests cannot have the server say, or not at once."""

from typing import Any

import pytest
from neonize.proto import Neonize_pb2 as neonize

from service.worker.addresses import from_text
from service.worker.inbound.events import groups
from zap.v1 import group_pb2

GROUP, CAROL = from_text("1@g.us"), from_text("2:7@lid")
NOBODY = neonize.JID(User="", Server="", RawAgent=0, Device=0, Integrator=0, IsEmpty=True)


def change(**changes: Any) -> neonize.GroupInfoEvent:
    fields = {
        "JID": GROUP,
        "Sender": CAROL,
        "Notify": "",
        "Timestamp": 1_700_000_000,
        "PrevParticipantsVersionID": "",
        "ParticipantVersionID": "",
        "JoinReason": "",
    }
    return neonize.GroupInfoEvent(**(fields | changes))


def asking(jid: str) -> neonize.Node:
    return neonize.Node(Tag="requested_user", Attrs=[neonize.NodeAttrs(name="jid", jid=from_text(jid))])


def told(event: neonize.GroupInfoEvent) -> group_pb2.GroupChanged:
    frame = groups.changed(event)
    assert frame is not None
    return frame.event.group_changed


def test_people_are_named_and_not_their_devices() -> None:
    assert told(change(Leave=[CAROL])) == group_pb2.GroupChanged(
        group="1@g.us", author="2@lid", left=[group_pb2.GroupMember(member="2@lid")]
    )


@pytest.mark.parametrize("nothing", [{}, {"JID": NOBODY, "Join": [CAROL]}], ids=["no news", "no group"])
def test_what_tells_nothing_is_no_event(nothing: dict[str, Any]) -> None:
    assert groups.changed(change(**nothing)) is None


def test_a_new_link_is_told_without_the_link() -> None:
    frame = groups.changed(change(NewInviteLink="https://chat.whatsapp.com/AbCdEf"))
    assert frame is not None
    assert frame.event.group_changed.is_invite_link_new
    assert b"AbCdEf" not in frame.SerializeToString()


def test_settings_that_are_switched_off_are_news_too() -> None:
    off = told(
        change(
            Locked=neonize.GroupLocked(isLocked=False),
            Announce=neonize.GroupAnnounce(IsAnnounce=False, AnnounceVersionID=""),
            Ephemeral=neonize.GroupEphemeral(IsEphemeral=False, DisappearingTimer=9),
            Topic=neonize.GroupTopic(Topic="", TopicID="", TopicSetAt=0, TopicSetBy=NOBODY, TopicDeleted=True),
        )
    )
    assert [off.HasField(field) for field in ("is_locked", "is_announcement", "disappear_after", "topic", "name")] == [
        *[True] * 4,
        False,
    ]
    assert (off.is_locked, off.is_announcement, off.disappear_after.seconds, off.topic) == (False, False, 0, "")


def test_changes_that_nobody_reads_are_named_but_not_without_end() -> None:
    unread = [neonize.Node(Tag=f"change_{number}") for number in range(100)]
    assert told(change(UnknownChanges=unread)).others == [f"change_{number}" for number in range(20)]


def test_the_longest_time_until_messages_disappear_is_a_duration() -> None:
    ephemeral = neonize.GroupEphemeral(IsEphemeral=True, DisappearingTimer=2**32 - 1)
    assert told(change(Ephemeral=ephemeral)).disappear_after.seconds == 2**32 - 1


def test_names_of_any_length_and_bytes_become_short_texts() -> None:
    name = neonize.GroupName(Name="x" * 5000, NameSetAt=0, NameSetBy=NOBODY)
    assert told(change(Name=name)).name == "x" * 1024
    garbled = change(Name=name).SerializeToString().replace(b"x" * 5000, b"\xff" * 5000)
    assert told(neonize.GroupInfoEvent.FromString(garbled)).name == "\N{REPLACEMENT CHARACTER}" * 1024


def test_of_more_people_than_an_event_can_hold_some_are_left_out() -> None:
    crowd = [from_text(f"{number:016}@lid") for number in range(60_000)]
    many = told(change(Join=crowd))
    assert many.is_truncated
    assert 15_000 < len(many.joined) < 60_000
    assert many.ByteSize() <= 1024 * 1024
    assert not told(change(Join=crowd[:5_000])).is_truncated


@pytest.mark.parametrize("tag", ["created_membership_requests", "revoked_membership_requests"])
def test_of_more_who_ask_or_no_longer_do_some_are_left_out(tag: str) -> None:
    crowd = [asking(f"{number:016}@lid") for number in range(60_000)]
    many = told(change(UnknownChanges=[neonize.Node(Tag=tag, Nodes=crowd)], Leave=[CAROL]))
    assert many.is_truncated
    assert many.ByteSize() <= 1024 * 1024
    assert len(many.asked_to_join) + len(many.no_longer_asking) > 10_000
