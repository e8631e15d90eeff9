"""Messages of the simulator as the real neonize sees them: groups, edits, phones that are off, retries."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from simulator.control import ControlError, SimulatorControl
from simulator.process import SimulatorProcess
from simulator.views import DeliveryView, InboxView
from tests.e2e.client_process import ClientProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(491520000001)

DELIVERED, DELIVERED_TO_OWN_DEVICE, READ = 1, 2, 4
"""neonize's numbers for types of receipts."""


@dataclass
class Linked:
    """A neonize client that is a linked device of a person."""

    client: ClientProcess
    pn: str
    jid: str
    store: Path


class Stage:
    """People with phones, and clients linked to some of them."""

    def __init__(self, simulator: SimulatorProcess, folder: Path) -> None:
        self._simulator = simulator
        self._folder = folder
        self._clients: list[ClientProcess] = []
        self.control: SimulatorControl = simulator.control

    async def person(self, name: str) -> str:
        return (await self.control.create_phone(str(next(_numbers)), name)).pn

    async def people(self, count: int) -> list[str]:
        return [await self.person(f"Person {number}") for number in range(count)]

    async def link(self, pn: str) -> Linked:
        store = self._folder / f"{pn}-{len(self._clients)}.db"
        client = await self._start(store)
        result = await self.control.scan(pn, (await client.expect("qr"))["text"])
        assert result.jid is not None
        await client.expect("connected")
        return Linked(client, pn, result.jid, store)

    async def restart(self, linked: Linked) -> None:
        await linked.client.kill()
        linked.client = await self._start(linked.store)
        await linked.client.expect("connected")

    async def acquaint(self, linked: Linked, friend: str) -> None:
        """Let a client write to a person and get an answer: their session is established on both sides."""
        await self.control.write(friend, linked.pn, "introduction")
        await linked.client.expect("message", text="introduction")
        await linked.client.send(friend, "answer")
        await self.control.wait_for_inbox(friend, "answer")

    async def delivery(self, linked: Linked, message_id: str) -> list[DeliveryView]:
        """What became of a message for a client, once the last of it is confirmed."""
        await self.control.wait_for_device(linked.jid, lambda it: it.queue == 0)
        return [it for it in await self.control.deliveries(linked.jid) if it.id == message_id]

    async def end(self) -> None:
        await asyncio.gather(*(client.kill() for client in self._clients))
        await self.control.clear_faults()

    async def _start(self, store: Path) -> ClientProcess:
        client = await ClientProcess.start(store, self._simulator.environment())
        self._clients.append(client)
        return client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def stage(simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(simulator, tmp_path)
    yield stage
    await stage.end()


# --- groups


async def test_a_person_writes_in_a_group(stage: Stage) -> None:
    alice, bob, carol = await stage.people(3)
    linked = await stage.link(alice)
    group = await stage.control.create_group(bob, "Garden", [alice, carol])
    assert group.members == [bob, alice, carol]
    await linked.client.expect("joined", group="Garden")
    sent = []
    for text in ("first", "second", "third"):
        sent.append(await stage.control.write(bob, group.jid, text))
        message = await linked.client.expect("message", text=text)
        assert (message["id"], message["chat"]) == (sent[-1], group.jid.partition("@")[0])
        for member in (alice, carol):
            arrived = await stage.control.wait_for_inbox(member, text)
            assert (arrived.id, arrived.sender, arrived.to, arrived.retries) == (sent[-1], bob, group.jid, 0)
    kinds = [[it.kinds for it in await stage.delivery(linked, message_id)] for message_id in sent]
    assert kinds == [[["pkmsg", "skmsg"]], [["skmsg"]], [["skmsg"]]], "the sender key comes with the first only"
    (written, *_) = await stage.control.sent(bob)
    assert {receipt.device.partition("@")[0] for receipt in written.receipts} == {alice, carol, f"{alice}:1"}


async def test_a_new_sender_key_comes_with_its_first_message(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    group = (await stage.control.create_group(bob, "Garden", [alice])).jid
    await stage.control.write(bob, group, "with the old key")
    message_id = await stage.control.write(bob, group, "with a new key", begin_anew=True)
    await linked.client.expect("message", text="with a new key", retries=0)
    assert [it.kinds for it in await stage.delivery(linked, message_id)] == [["pkmsg", "skmsg"]]


async def test_a_client_writes_in_a_group(stage: Stage) -> None:
    alice, bob, carol = await stage.people(3)
    linked = await stage.link(alice)
    group = await stage.control.create_group(alice, "Garden", [bob, carol])
    chat = group.jid.partition("@")[0]
    lids = {member: (await stage.control.phone(member)).lid.partition("@")[0] for member in group.members}
    for text in ("first", "second"):
        sent = await linked.client.send(group.jid, text)
        for member, lid in lids.items():
            arrived = await stage.control.wait_for_inbox(member, text)
            assert (arrived.id, arrived.sender, arrived.to) == (sent, alice, group.jid)
            assert (arrived.times, arrived.retries) == (1, 0)
            kind = DELIVERED_TO_OWN_DEVICE if member == alice else DELIVERED
            await linked.client.expect("receipt", type=kind, ids=[sent], chat=chat, sender=f"{lid}:0")
        await stage.control.mark_read(carol, sent)
        await linked.client.expect("receipt", type=READ, ids=[sent], chat=chat, sender=f"{lids[carol]}:0")


async def test_two_clients_write_to_each_other_in_a_group(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    of_alice, of_bob = await stage.link(alice), await stage.link(bob)
    group = (await stage.control.create_group(alice, "Garden", [bob])).jid
    for number in range(3):
        await of_alice.client.send(group, f"from Alice {number}")
        await of_bob.client.expect("message", text=f"from Alice {number}")
        await of_bob.client.send(group, f"from Bob {number}")
        await of_alice.client.expect("message", text=f"from Bob {number}")


async def test_a_device_without_a_sender_key_asks_a_client_for_it(stage: Stage) -> None:
    """A client does not notice that a member of a group has one device more: it encrypts its key for the old ones."""
    alice, bob = await stage.people(2)
    of_alice = await stage.link(alice)
    group = (await stage.control.create_group(alice, "Garden", [bob])).jid
    await of_alice.client.send(group, "before")
    of_bob = await stage.link(bob)
    sent = await of_alice.client.send(group, "without a key")
    await of_bob.client.expect("undecryptable", id=sent)
    await of_bob.client.expect("message", text="without a key", retries=1)
    assert [it.kinds for it in await stage.delivery(of_bob, sent)] == [["skmsg"], ["pkmsg"]]
    assert (await stage.control.device(of_alice.jid)).messages.answered == 1


async def test_a_client_that_lost_a_sender_key_asks_a_phone_for_it(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    group = (await stage.control.create_group(bob, "Garden", [alice])).jid
    await linked.client.kill()
    files = {file: file.read_bytes() for file in linked.store.parent.glob(f"{linked.store.name}*")}
    await stage.restart(linked)
    first = await stage.control.write(bob, group, "first")
    assert [it.acknowledged_by for it in await stage.delivery(linked, first)] == ["receipt"]
    await linked.client.kill()
    for file in linked.store.parent.glob(f"{linked.store.name}*"):
        file.unlink()
    for file, data in files.items():
        file.write_bytes(data)
    await stage.restart(linked)
    sent = await stage.control.write(bob, group, "second")
    await linked.client.expect("message", text="second")
    later = await stage.control.write(bob, group, "third")
    await linked.client.expect("message", text="third", retries=0)
    assert (await stage.delivery(linked, sent))[-1].kinds == ["pkmsg"]
    assert [it.kinds for it in await stage.delivery(linked, later)] == [["skmsg"]]


async def test_what_the_own_phone_writes_in_a_group(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    group = (await stage.control.create_group(bob, "Garden", [alice])).jid
    await stage.control.write(alice, group, "from my phone")
    message = await linked.client.expect("message", text="from my phone")
    assert (message["is_from_me"], message["chat"]) == (True, group.partition("@")[0])
    await stage.control.wait_for_inbox(bob, "from my phone")


async def test_a_client_outside_a_group_cannot_write_there(stage: Stage) -> None:
    alice, bob, carol = await stage.people(3)
    linked = await stage.link(alice)
    group = (await stage.control.create_group(bob, "Garden", [carol])).jid
    for address, words in ((group, "not participating"), ("120363999@g.us", "does not exist")):
        await linked.client.command("send", to=address, text="hello?")
        assert words in (await linked.client.expect("command-failed"))["text"]
    assert [found.jid for found in await stage.control.groups() if carol in found.members] == [group]
    assert (await stage.control.group(group)).creator == bob
    with pytest.raises(ControlError, match="UnknownGroup"):
        await stage.control.write(bob, "120363999@g.us", "hello?")


# --- kinds of messages


async def test_a_message_begins_a_conversation_or_goes_on_with_one(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.acquaint(linked, bob)
    for begin_anew, kind in ((False, "msg"), (True, "pkmsg"), (True, "pkmsg")):
        sent = await stage.control.write(bob, alice, "text", begin_anew=begin_anew)
        await linked.client.expect("message", id=sent, text="text", retries=0)
        assert [it.kinds for it in await stage.delivery(linked, sent)] == [[kind]]
    await linked.client.send(bob, "in the newest session")
    assert (await stage.control.wait_for_inbox(bob, "in the newest session")).retries == 0


async def test_a_client_whose_prekeys_run_low_uploads_more(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    uploaded = (await stage.control.device(linked.jid)).one_time_prekeys
    for number in range(uploaded):
        await stage.control.write(bob, alice, f"text {number}", begin_anew=True)
        await linked.client.expect("message", text=f"text {number}", retries=0)
    await stage.control.wait_for_device(linked.jid, lambda it: it.one_time_prekeys > uploaded // 2)
    assert (await stage.control.device(linked.jid)).messages.retry_receipted == 0


@pytest.mark.parametrize("is_group", [False, True])
async def test_a_garbled_message_comes_whole_when_the_client_asks_again(stage: Stage, is_group: bool) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    chat = (await stage.control.create_group(bob, "Garden", [alice])).jid if is_group else alice
    sent = await stage.control.write(bob, chat, "garbled", is_garbled=True)
    await linked.client.expect("undecryptable", id=sent)
    await linked.client.expect("message", id=sent, text="garbled", retries=1)
    first, second = await stage.delivery(linked, sent)
    assert (first.retry, first.acknowledged_by in {"retry", "ack"}) == (0, True)
    assert (second.retry, second.acknowledged_by) == (1, "receipt")
    await stage.control.write(bob, chat, "afterwards")
    await linked.client.expect("message", text="afterwards", retries=0)


@pytest.mark.parametrize("is_group", [False, True])
async def test_edits_go_both_ways(stage: Stage, is_group: bool) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    group = (await stage.control.create_group(bob, "Garden", [alice])).jid
    to_alice, to_bob = (group, group) if is_group else (alice, bob)
    original = await stage.control.write(bob, to_alice, "Hello Alcie")
    await stage.control.edit(bob, original, "Hello Alice")
    assert (await linked.client.expect("message", text="Hello Alice"))["is_edit"]
    sent = await linked.client.send(to_bob, "Hello Bbo")
    await linked.client.command("edit", to=to_bob, message_id=sent, text="Hello Bob")
    edited = await stage.control.wait_for_inbox(bob, "Hello Bob")
    assert (edited.id, edited.edits) == (sent, 1)


# --- what is confirmed


async def test_a_message_waits_until_the_client_confirms_it(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.control.wait_for_device(linked.jid, lambda it: it.queue == 0 and it.messages.queued > 0)
    await stage.control.drop_at_confirmation(linked.jid)
    sent = await stage.control.write(bob, alice, "not confirmed at first")
    await stage.control.wait_for_connected(linked.jid, logins=2)
    (delivery,) = await stage.delivery(linked, sent)
    assert (delivery.delivered, delivery.acknowledged_by) == (2, "receipt")
    await linked.client.kill()
    await stage.control.wait_for_device(linked.jid, lambda it: it.connections == 0)
    sent = await stage.control.write(bob, alice, "while away")
    (delivery,) = [it for it in await stage.control.deliveries(linked.jid) if it.id == sent]
    assert (delivery.delivered, delivery.acknowledged_at, delivery.acknowledged_by) == (0, None, "")
    await stage.restart(linked)
    await linked.client.expect("message", text="while away")
    (delivery,) = await stage.delivery(linked, sent)
    assert (delivery.delivered, delivery.acknowledged_by) == (1, "receipt")
    assert delivery.acknowledged_at is not None


async def test_the_receipts_of_all_members_wait_for_a_client_that_is_away(stage: Stage) -> None:
    alice, bob, carol = await stage.people(3)
    linked = await stage.link(alice)
    group = (await stage.control.create_group(alice, "Garden", [bob, carol])).jid
    for member in (bob, carol):
        await stage.control.switch_off(member)
    sent = await linked.client.send(group, "who is there?")
    await linked.client.kill()
    await stage.control.wait_for_device(linked.jid, lambda it: it.connections == 0)
    for member in (bob, carol):
        await stage.control.switch_on(member)
    await stage.restart(linked)
    lids = [(await stage.control.phone(member)).lid.partition("@")[0] for member in (bob, carol)]
    for lid in lids:
        await linked.client.expect("receipt", type=DELIVERED, ids=[sent], sender=f"{lid}:0")


# --- phones that are off


async def test_a_phone_that_is_off_gets_its_messages_when_it_is_on(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    of_alice, of_bob = await stage.link(alice), await stage.link(bob)
    await stage.control.switch_off(bob)
    sent = [await of_alice.client.send(bob, f"text {number}") for number in range(3)]
    await of_bob.client.expect("message", text="text 2")
    phone = await stage.control.phone(bob)
    assert (phone.is_on, phone.waiting, await stage.control.inbox(bob)) == (False, 3, [])
    for wish in (
        stage.control.write(bob, alice, "off"),
        stage.control.mark_read(bob, sent[0]),
        stage.control.create_group(bob, "Garden", [alice]),
    ):
        with pytest.raises(ControlError, match="PhoneIsOff"):
            await wish
    await stage.control.switch_on(bob)
    arrived = await stage.control.inbox(bob)
    assert [(message.id, message.retries) for message in arrived] == [(message_id, 0) for message_id in sent]
    await of_alice.client.expect("receipt", type=DELIVERED, ids=[sent[2]])
    assert (await stage.control.phone(bob)).waiting == 0


async def test_receipts_wait_for_a_phone_that_is_off(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    sent = await stage.control.write(bob, alice, "text")
    await stage.control.switch_off(bob)
    await linked.client.expect("message", text="text")
    await stage.delivery(linked, sent)
    assert [receipt for receipt in (await stage.control.sent(bob))[0].receipts if ":" in receipt.device] == []
    await stage.control.switch_on(bob)
    await stage.control.wait_for_receipt(bob, sent)


# --- messages that a phone cannot read


async def read_after(stage: Stage, pn: str, text: str) -> InboxView:
    message = await stage.control.wait_for_inbox(pn, text)
    assert await stage.control.unreadable(pn) == []
    assert message.times == 1
    return message


@pytest.mark.parametrize("is_group", [False, True])
@pytest.mark.parametrize(("how", "retries"), [("lost", 1), ("damaged", 2)])
async def test_a_phone_asks_a_client_for_what_it_could_not_read(
    stage: Stage, is_group: bool, how: str, retries: int
) -> None:
    """With a damaged session twice: the client encrypts its first answer for that session, too."""
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.acquaint(linked, bob)
    chat = (await stage.control.create_group(alice, "Garden", [bob])).jid if is_group else bob
    await stage.control.make_unreadable(bob, linked.jid, how=how)
    sent = await linked.client.send(chat, "unreadable at first")
    message = await read_after(stage, bob, "unreadable at first")
    assert (message.id, message.to, message.retries) == (sent, chat, retries)
    assert (await stage.control.device(linked.jid)).messages.answered == retries
    await linked.client.send(chat, "readable")
    assert (await stage.control.wait_for_inbox(bob, "readable")).retries == 0


async def test_a_phone_asks_for_each_message_that_it_could_not_read(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.acquaint(linked, bob)
    await stage.control.switch_off(bob)
    for number in range(4):
        await linked.client.send(bob, f"text {number}")
    await stage.control.make_unreadable(bob, alice)
    await stage.control.switch_on(bob)
    for number in range(4):
        assert (await stage.control.wait_for_inbox(bob, f"text {number}")).retries > 0
    assert await stage.control.unreadable(bob) == []


@pytest.mark.parametrize("is_group", [False, True])
async def test_a_phone_gives_up_after_five_retries(stage: Stage, is_group: bool) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.acquaint(linked, bob)
    chat = (await stage.control.create_group(alice, "Garden", [bob])).jid if is_group else bob
    await stage.control.make_unreadable(bob, alice, times=None)
    sent = await linked.client.send(chat, "never read")
    missed = await stage.control.wait_for_given_up(bob, sent)
    assert (missed.retries, missed.sender, missed.chat) == (5, alice, chat if is_group else alice)
    assert [message.text for message in await stage.control.inbox(bob)] == ["answer"]
    await stage.control.clear_faults()
    await linked.client.send(chat, "read again")
    assert (await stage.control.wait_for_inbox(bob, "read again")).retries == 1, "the session was lost once more"
    assert [message.id for message in await stage.control.unreadable(bob)] == [sent]


async def test_the_own_phone_asks_for_its_copy(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.acquaint(linked, bob)
    await stage.control.make_unreadable(alice, linked.jid)
    sent = await linked.client.send(bob, "a copy for my phone")
    message = await read_after(stage, alice, "a copy for my phone")
    assert (message.id, message.to, message.retries) == (sent, bob, 1)
    assert (await stage.control.wait_for_inbox(bob, "a copy for my phone")).retries == 0


async def test_a_phone_asks_another_phone(stage: Stage) -> None:
    alice, bob = await stage.people(2)
    group = (await stage.control.create_group(alice, "Garden", [bob])).jid
    await stage.control.write(alice, group, "first")
    for chat in (bob, group):
        await stage.control.make_unreadable(bob)
        await stage.control.write(alice, chat, f"unreadable in {chat}")
        assert (await read_after(stage, bob, f"unreadable in {chat}")).retries == 1


@pytest.mark.parametrize("is_group", [False, True])
async def test_a_message_is_asked_for_after_the_client_was_cut_off(stage: Stage, is_group: bool) -> None:
    """The same process answers from its memory."""
    alice, bob = await stage.people(2)
    linked = await stage.link(alice)
    await stage.acquaint(linked, bob)
    chat = (await stage.control.create_group(alice, "Garden", [bob])).jid if is_group else bob
    await stage.control.switch_off(bob)
    await linked.client.send(chat, "before the drop")
    await stage.control.drop(linked.jid)
    await stage.control.wait_for_connected(linked.jid, logins=2)
    await stage.control.make_unreadable(bob, alice)
    await stage.control.switch_on(bob)
    assert (await read_after(stage, bob, "before the drop")).retries == 1
