"""What happens in WhatsApp besides messages, from the server's stanza to Redis and the log."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from simulator import histories, stanzas
from simulator.binary_xml import Attrs, Node, node
from simulator.control import SimulatorControl
from simulator.jid import Jid
from tests.e2e import fuzz_stanzas
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess
from zap.v1 import call_pb2, event_pb2, group_pb2, history_pb2, identity_pb2, picture_pb2, presence_pb2, session_pb2

GROUP = Jid("120363000000000001", "g.us")
COMMUNITY = Jid("120363000000000002", "g.us")
CAROL, CAROL_PN = Jid("998877665544", "lid"), Jid("4915777777777")
DAVE = Jid("887766554433", "lid")
THEN = 1_700_000_000


@dataclass
class Stage:
    """A paired session, and somebody who knows it."""

    node: ServiceProcess
    simulator: SimulatorControl
    live: LiveEvents
    sql: Sql
    phone: str
    jid: str
    friend: str
    session_id: str

    async def happens(self, stanza: Node) -> None:
        assert await self.simulator.deliver(self.jid, stanza) == 1

    async def told(self, payload: str, **fields: Any) -> event_pb2.Event:
        """What Redis tells; it is in the log as well."""
        event = ParseDict(await self.live.wait_for(self.session_id, payload, **fields), event_pb2.Event())
        kept = await self.sql.fetchrow("SELECT sequence, payload FROM zap.event WHERE id = $1", int(event.id))
        assert kept is not None
        logged = event_pb2.Event.FromString(kept["payload"])
        assert (kept["sequence"], logged.type) == (event.sequence, event.type)
        assert getattr(logged, logged.WhichOneof("payload") or "") == getattr(event, event.WhichOneof("payload") or "")
        return event

    async def is_well(self) -> None:
        """The process that heard all this goes on, and tells of a message that comes now."""
        await self.simulator.write(self.friend, self.phone, "and now?")
        await self.told("messageReceived", text="and now?")
        assert (await self.node.status(self.session_id)).owner.epoch == 1
        assert "could not be handled" not in self.node.log()


@pytest.fixture
def database_url(module_database_url: str) -> str:
    """That of the node that all tests share."""
    return module_database_url


@pytest.fixture
async def stage(
    shared_node: ServiceProcess, simulator: SimulatorControl, live: LiveEvents, sql: Sql
) -> AsyncIterator[Stage]:
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Bob")
    session_id = f"anna-{phone}"
    jid = await pair(shared_node, simulator, session_id, phone)
    yield Stage(shared_node, simulator, live, sql, phone, jid, friend, session_id)
    await shared_node.sessions.Delete(session_pb2.DeleteRequest(session_id=session_id, force=True))
    said = shared_node.log()
    for private in (CAROL.user, CAROL_PN.user, DAVE.user, GROUP.user, "Choir", "We sing", "AbCdEfGhIjKlMnOpQrStUv"):
        assert private not in said


async def test_a_call_rings_is_taken_and_ends(stage: Stage) -> None:
    known: Attrs = {"call-id": "CALL1", "call-creator": CAROL, "caller_pn": CAROL_PN}
    offer = node("offer", known, node("audio", {"enc": "opus"}), node("video", {"enc": "vp8"}))
    await stage.happens(stanzas.call(CAROL, offer, platform="iphone", version="2.26.1", t=THEN))
    offered = await stage.told("call", phase="PHASE_OFFERED")
    expected = call_pb2.Call(
        call_id="CALL1",
        phase=call_pb2.Call.PHASE_OFFERED,
        caller=str(CAROL),
        caller_alternative=str(CAROL_PN),
        is_video=True,
        platform="iphone",
    )
    setattr(expected, "from", str(CAROL))
    assert (offered.call, offered.time.seconds) == (expected, THEN)
    await stage.happens(stanzas.call(CAROL, node("accept", known), platform="iphone", version="2.26.1"))
    assert (await stage.told("call", phase="PHASE_ACCEPTED")).call.call_id == "CALL1"
    await stage.happens(stanzas.call(CAROL, node("terminate", {**known, "reason": "timeout"})))
    assert (await stage.told("call", phase="PHASE_ENDED")).call.end_reason == "timeout"


async def test_a_call_in_a_group_says_which(stage: Stage) -> None:
    known: Attrs = {"call-id": "CALL2", "call-creator": CAROL, "group-jid": GROUP}
    await stage.happens(stanzas.call(GROUP, node("offer_notice", {**known, "media": "video", "type": "group"})))
    call = (await stage.told("call")).call
    assert (call.group, call.is_group, call.is_video, call.caller) == (str(GROUP), True, True, str(CAROL))


async def test_what_changes_about_a_group_is_told(stage: Stage) -> None:
    members = (node("participant", {"jid": CAROL, "phone_number": CAROL_PN}), node("participant", {"jid": DAVE}))
    await stage.happens(
        stanzas.notification(
            "w:gp2",
            GROUP,
            node("subject", {"subject": "Choir", "s_t": THEN, "s_o": CAROL}),
            node("description", {"id": "D1"}, node("body", {}, b"We sing.")),
            node("locked"),
            node("not_announcement", {"v_id": "1"}),
            node("ephemeral", {"expiration": 86400}),
            node("add", {"reason": "invite"}, *members),
            node("invite", {"code": "AbCdEfGhIjKlMnOpQrStUv"}),
            node("member_add_mode", {}, b"admin_add"),
            participant=CAROL,
            t=THEN,
        )
    )
    event = await stage.told("groupChanged")
    expected = group_pb2.GroupChanged(
        group=str(GROUP),
        author=str(CAROL),
        name="Choir",
        topic="We sing.",
        is_locked=True,
        is_announcement=False,
        joined=[group_pb2.GroupMember(member=str(CAROL)), group_pb2.GroupMember(member=str(DAVE))],
        join_reason="invite",
        is_invite_link_new=True,
        others=["member_add_mode"],
    )
    expected.disappear_after.FromSeconds(86400)
    assert (event.group_changed, event.time.seconds) == (expected, THEN)
    assert not any("AbCdEfGhIjKlMnOpQrStUv" in text for text in stage.live.texts)


async def test_members_and_communities_come_and_go(stage: Stage) -> None:
    dave = node("participant", {"jid": DAVE})
    link = node("group", {"jid": COMMUNITY, "subject": "Town"})
    request = node("requested_user", {"jid": DAVE, "phone_number": CAROL_PN})
    await stage.happens(
        stanzas.notification(
            "w:gp2",
            GROUP,
            node("remove", {}, dave),
            node("promote", {}, dave),
            node("demote", {}, dave),
            node("created_membership_requests", {"request_method": "invite_link"}, request),
            node("revoked_membership_requests", {}),
            node("link", {"link_type": "parent_group"}, link),
            node("unlink", {"unlink_type": "sub_group", "unlink_reason": "unlink_group"}, link),
            node("delete", {"reason": "admin"}),
            participant=CAROL,
        )
    )
    changed = (await stage.told("groupChanged")).group_changed
    assert [[who.member for who in some] for some in (changed.left, changed.promoted, changed.demoted)] == [
        [str(DAVE)]
    ] * 3
    asked = group_pb2.GroupMember(member=str(DAVE), member_alternative=str(CAROL_PN))
    assert (list(changed.asked_to_join), changed.no_longer_asking[0].member) == ([asked], str(CAROL))
    assert (changed.linked.kind, changed.linked.group) == (group_pb2.GroupLink.KIND_PARENT, str(COMMUNITY))
    assert (changed.unlinked.kind, changed.unlinked.reason) == (group_pb2.GroupLink.KIND_PART, "unlink_group")
    assert (changed.linked.name, changed.deleted.reason) == ("Town", "admin")


async def test_a_group_that_the_account_enters_is_told_with_its_members(stage: Stage) -> None:
    group = node(
        "group",
        {"id": GROUP.user, "subject": "Choir", "creator": CAROL, "creator_pn": CAROL_PN, "addressing_mode": "lid"},
        node("participant", {"jid": CAROL, "phone_number": CAROL_PN, "type": "superadmin"}),
        node("participant", {"jid": DAVE}),
        node("description", {"id": "D1", "t": THEN}, node("body", {}, b"We sing.")),
        node("announcement"),
        node("ephemeral", {"expiration": 604800}),
        node("linked_parent", {"jid": COMMUNITY}),
    )
    await stage.happens(stanzas.notification("w:gp2", GROUP, node("create", {"reason": "invite"}, group)))
    changed = (await stage.told("groupChanged")).group_changed
    expected = group_pb2.GroupEntered(
        reason="invite",
        name="Choir",
        topic="We sing.",
        creator=str(CAROL),
        creator_alternative=str(CAROL_PN),
        is_announcement=True,
        community=str(COMMUNITY),
        members=[
            group_pb2.GroupMember(member=str(CAROL), member_alternative=str(CAROL_PN), is_admin=True, is_creator=True),
            group_pb2.GroupMember(member=str(DAVE)),
        ],
    )
    expected.disappear_after.FromSeconds(604800)
    assert changed == group_pb2.GroupChanged(group=str(GROUP), entered=expected)


async def test_pictures_and_security_codes_are_told(stage: Stage) -> None:
    changed = node("set", {"jid": GROUP, "id": "1", "author": CAROL})
    await stage.happens(stanzas.notification("picture", GROUP, changed, t=THEN))
    event = await stage.told("pictureChanged", whose=str(GROUP))
    assert event.picture_changed == picture_pb2.PictureChanged(whose=str(GROUP), author=str(CAROL))
    assert event.time.seconds == THEN
    await stage.happens(stanzas.notification("picture", CAROL, node("delete", {"jid": CAROL})))
    assert (await stage.told("pictureChanged", whose=str(CAROL))).picture_changed.is_removed
    await stage.happens(stanzas.notification("encrypt", CAROL, node("identity")))
    event = await stage.told("identityChanged")
    assert event.identity_changed == identity_pb2.IdentityChanged(person=str(CAROL))


async def test_who_is_there_and_who_writes_is_told(stage: Stage) -> None:
    await stage.happens(stanzas.presence(CAROL))
    assert (await stage.told("presence")).presence == presence_pb2.Presence(person=str(CAROL), is_online=True)
    await stage.happens(stanzas.presence(CAROL, type="unavailable", last=THEN))
    assert (await stage.told("presence", lastSeenTime="2023-11-14T22:13:20Z")).presence.person == str(CAROL)
    await stage.happens(stanzas.chat_state(CAROL, "composing", media="audio"))
    told = (await stage.told("chatPresence", chat=str(CAROL))).chat_presence
    assert (told.sender, told.is_group) == (str(CAROL), False)
    assert told.activity == presence_pb2.ChatPresence.ACTIVITY_RECORDING
    await stage.happens(stanzas.chat_state(GROUP, "composing", participant=DAVE))
    told = (await stage.told("chatPresence", chat=str(GROUP))).chat_presence
    assert (told.sender, told.is_group, told.activity) == (str(DAVE), True, presence_pb2.ChatPresence.ACTIVITY_TYPING)
    await stage.happens(stanzas.chat_state(GROUP, "paused", participant=DAVE))
    await stage.told("chatPresence", activity="ACTIVITY_PAUSED")


async def test_a_flood_of_moments_is_thinned_out_and_costs_no_message(stage: Stage) -> None:
    for number in range(300):
        await stage.happens(stanzas.chat_state(CAROL, ("composing", "paused")[number % 2]))
    await stage.is_well()
    await stage.happens(stanzas.chat_state(GROUP, "composing", participant=DAVE))
    await stage.told("chatPresence", chat=str(GROUP))
    assert len(stage.live.of(stage.session_id, "chatPresence")) < 100
    # The last of them is never left out: nobody is told for ever that somebody writes.
    await stage.told("chatPresence", chat=str(CAROL), activity="ACTIVITY_PAUSED")


async def test_a_piece_of_history_is_counted_and_not_told(stage: Stage) -> None:
    chats = [histories.chat(str(CAROL_PN), [THEN, THEN + 5]), histories.chat(str(GROUP), [0, 2**40, THEN + 9])]
    names = [histories.PushName(str(CAROL_PN), "Carol")]
    piece = histories.History(histories.RECENT, chats, chunk=3, progress=40, push_names=names)
    assert await stage.simulator.share_history(stage.phone, piece.encode()) == 1
    expected = history_pb2.HistorySync(
        kind=history_pb2.HistorySync.KIND_RECENT,
        chunk=3,
        progress_percent=40,
        conversations=2,
        messages=5,
        push_names=1,
    )
    expected.oldest_message_time.FromSeconds(THEN)
    expected.newest_message_time.FromSeconds(THEN + 9)
    assert (await stage.told("historySync")).history_sync == expected
    await stage.is_well()
    assert len(stage.live.of(stage.session_id, "messageReceived")) == 1


async def test_receipts_of_the_owners_own_devices_are_told_as_such(stage: Stage) -> None:
    for word, kind in (("read-self", "KIND_READ_BY_OWNER"), ("played-self", "KIND_PLAYED_BY_OWNER")):
        await stage.simulator.send_receipt(stage.jid, stage.phone, word)
        assert len((await stage.told("receipt", kind=kind)).receipt.message_ids) == 1


async def test_what_is_told_again_is_one_event(stage: Stage) -> None:
    first = stanzas.notification("w:gp2", GROUP, node("locked"), participant=CAROL, t=THEN)
    for _ in range(3):
        await stage.happens(first)
    await stage.happens(stanzas.notification("w:gp2", GROUP, node("unlocked"), participant=CAROL, t=THEN))
    await stage.told("groupChanged", isLocked=False)
    assert len(stage.live.of(stage.session_id, "groupChanged")) == 2


async def test_rubbish_ends_nothing(stage: Stage) -> None:
    nobody = node("participant", {"jid": "nobody"})
    for stanza in (
        *(stanzas.call(CAROL, node(step)) for step in ("offer", "offer_notice", "accept", "terminate", "nonsense")),
        node("call", {"id": "1"}),
        node("call", {"from": CAROL, "id": "2", "t": "never"}, node("offer", {"call-id": "X"}), node("offer")),
        *(stanzas.notification("w:gp2", GROUP, node(change)) for change in ("subject", "add", "link", "invite", "?")),
        stanzas.notification("w:gp2", GROUP, node("create", {}, node("group", {}))),
        stanzas.notification("w:gp2", GROUP, node("add", {}, nobody, nobody), participant=CAROL),
        stanzas.notification("w:gp2", GROUP, node("create", {}, node("group", {"id": "9"}, nobody))),
        stanzas.notification("w:gp2", GROUP),
        node("notification", {"type": "w:gp2", "id": "3"}, node("locked")),
        *(stanzas.notification("picture", CAROL, node(change)) for change in ("set", "delete", "?")),
        stanzas.notification("encrypt", CAROL, node("?")),
        node("notification", {"type": "encrypt", "id": "4"}, node("identity")),
        node("presence"),
        stanzas.presence(CAROL, type="?", last="never"),
        stanzas.chat_state(CAROL, "composing", media=None),
        node("chatstate", {"from": CAROL}),
        node("chatstate", {}, node("composing")),
    ):
        await stage.happens(stanza)
    await stage.simulator.share_history(stage.phone, b"rubbish")
    for moment in ("99999999999999", "-5", "0"):
        await stage.happens(stanzas.notification("w:gp2", GROUP, node("locked"), participant=CAROL, t=moment))
    await stage.is_well()
    locked = [
        event for event in stage.live.of(stage.session_id, "groupChanged") if event["groupChanged"].get("isLocked")
    ]
    times = {ParseDict(event, event_pb2.Event()).time.seconds for event in locked}
    assert times
    assert max(times) <= time.time() + 60


async def test_rubbish_by_chance_ends_nothing(stage: Stage) -> None:
    for stanza in fuzz_stanzas.stanzas(seed=7, count=400):
        await stage.happens(stanza)
    await stage.is_well()
    told = {kind for event in stage.live.events for kind in event}
    assert told >= {"groupChanged", "presence", "chatPresence"}


@pytest.mark.parametrize(
    "stanza",
    [
        stanzas.chat_state(CAROL, "levitating"),
        stanzas.chat_state(CAROL, "composing", media="smell"),
        stanzas.notification("w:gp2", GROUP, node("link", {"link_type": "?"}, node("group", {"jid": COMMUNITY}))),
    ],
    ids=["state", "medium", "link"],
)
async def test_a_word_that_neonize_does_not_know_costs_a_process_and_no_message(stage: Stage, stanza: Node) -> None:
    """Fact 8. When this fails the process lives on: docs/events.md and docs/neonize.md can say so."""
    await stage.happens(stanza)
    await stage.live.wait_for(stage.session_id, "stateChanged", to="STATE_RECONNECTING")
    await stage.simulator.write(stage.friend, stage.phone, "meanwhile")
    await stage.told("messageReceived", text="meanwhile")
    # whatsmeow confirms a notification beside handling it. If it is dead first, WhatsApp sends it to the next one too.
    assert (await stage.node.status(stage.session_id)).owner.epoch > 1
