"""Sending where the end-to-end tests do not get: answers that were lost, receipts that were too quick."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from service.domain.caller import Caller
from service.domain.errors import NotFound, Unavailable
from service.domain.lease import Lease
from service.domain.records import MessageState, NewMessage, OutboundMessage, Outcome, TypedPayload
from service.domain.session import Condition, Credentials, Desired, State
from service.messaging.keyed_lock import KeyedLock
from service.messaging.sender import MessageSender
from service.ports.processes import SendReply
from service.sessions.early_receipts import KEEP_S, MAX_RECEIPTS, EarlyReceipts
from tests.contents import text_content

NOW = datetime.now(UTC)
LEASE = Lease("anna", 3, uuid4())
CALLER = Caller("key-1")
TO = "4915100000001@s.whatsapp.net"
HELLO = text_content("hello")


class World:
    """A connected session, its process and its messages, with faults to be switched on."""

    def __init__(self) -> None:
        self.connection = (LEASE, self)
        self.early_receipts = EarlyReceipts()
        self.kept: dict[str, OutboundMessage] = {}
        self.sent: list[TypedPayload] = []
        self.accept_loses_its_answer = False
        self.answers_to_lose = 0
        self.receipt_while_settling: MessageState | None = None
        self.process_fault: Exception | None = None
        self.is_deleted_while_sending = False
        self.holds_sends: asyncio.Event | None = None

        self.callers: set[Caller] = set()
        """On whose behalf sessions and messages were asked for."""

    def of(self, caller: Caller) -> Any:
        """It, as both stores."""
        self.callers.add(caller)
        return self

    def get(self, session_id: str) -> "World":
        return self

    async def accept(self, lease: Lease, request_id: str, to: str, fingerprint: bytes) -> tuple[OutboundMessage, bool]:
        is_new = request_id not in self.kept
        if is_new:
            self.kept[request_id] = OutboundMessage(
                lease.session_id, request_id, to, lease.epoch, MessageState.ACCEPTED, "", "", NOW, None, NOW
            )
        self.answers_to_lose -= 1
        await asyncio.sleep(0)
        if self.accept_loses_its_answer or self.answers_to_lose >= 0:
            raise Unavailable("the commit came through, its answer did not")
        return self.kept[request_id], is_new

    async def find(self, session_id: str, request_id: str, fingerprint: bytes | None) -> OutboundMessage | None:
        return self.kept.get(request_id)

    async def send(self, to: str, content: TypedPayload, timeout: float) -> SendReply:
        self.sent.append(content)
        if self.holds_sends is not None:
            await self.holds_sends.wait()
        if self.process_fault is not None:
            raise self.process_fault
        return SendReply(f"WA{len(self.sent)}", NOW)

    async def settle(self, session_id: str, request_id: str, outcome: Outcome) -> OutboundMessage:
        if self.is_deleted_while_sending:
            raise NotFound("deleted, with all its messages")
        if self.receipt_while_settling is not None:
            self.early_receipts.remember([outcome.message_id], self.receipt_while_settling)
        message = replace(self.kept[request_id], state=outcome.state, message_id=outcome.message_id)
        self.kept[request_id] = message
        return message

    async def delivered(self, session_id: str, message_ids: Sequence[str], state: MessageState) -> Sequence[str]:
        for request_id, message in self.kept.items():
            if message.message_id in message_ids:
                self.kept[request_id] = replace(message, state=state)
        return message_ids


class Sessions:
    """All are paired and wanted, and connected as far as the database knows."""

    async def get(self, session_id: str) -> object:
        condition = Condition(Desired.ACTIVE, State.CONNECTED, credentials=Credentials.CONFIRMED)
        return SimpleNamespace(session_id=session_id, condition=condition)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sending(world: World) -> MessageSender:
    everything: Any = world
    return MessageSender(world.of, world.of, everything)


async def send(sending: MessageSender) -> OutboundMessage:
    return await sending.send(CALLER, "anna", NewMessage("r1", TO, HELLO, b"fingerprint"), timeout=1)


async def test_an_intent_whose_answer_was_lost_is_carried_out_by_the_next_try(
    world: World, sending: MessageSender
) -> None:
    world.accept_loses_its_answer = True
    with pytest.raises(Unavailable):
        await send(sending)
    assert world.sent == []
    world.accept_loses_its_answer = False
    assert (await send(sending)).state is MessageState.SENT
    assert (await send(sending)).state is MessageState.SENT
    assert world.sent == [HELLO]


async def test_an_intent_of_an_earlier_process_is_nobodys_to_carry_out(world: World, sending: MessageSender) -> None:
    await world.accept(replace(LEASE, epoch=2), "r1", TO, b"")
    assert (await send(sending)).state is MessageState.ACCEPTED
    assert world.sent == []


async def test_what_a_fault_of_ours_may_have_sent_is_not_sent_again(world: World, sending: MessageSender) -> None:
    world.process_fault = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError):
        await send(sending)
    world.process_fault = None
    assert (await send(sending)).state is MessageState.ACCEPTED
    assert world.sent == [HELLO]


async def test_of_a_session_that_is_deleted_meanwhile_nothing_is_remembered(
    world: World, sending: MessageSender
) -> None:
    world.is_deleted_while_sending = True
    with pytest.raises(NotFound):
        await send(sending)
    assert not sending._unsettled


async def test_two_callers_at_once_send_once(world: World, sending: MessageSender) -> None:
    answers = await asyncio.gather(*(send(sending) for _ in range(20)))
    assert {answer.state for answer in answers} == {MessageState.SENT}
    assert world.sent == [HELLO]


async def test_many_callers_send_once_though_some_answers_are_lost(world: World, sending: MessageSender) -> None:
    world.answers_to_lose = 3
    answers = await asyncio.gather(*(send(sending) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, Unavailable) for answer in answers) == 3
    assert world.sent == [HELLO]


async def test_a_receipt_that_came_before_the_outcome_was_written_counts(world: World, sending: MessageSender) -> None:
    world.receipt_while_settling = MessageState.READ
    assert (await send(sending)).state is MessageState.READ


async def test_a_message_is_stored_and_settled_on_behalf_of_its_caller(world: World, sending: MessageSender) -> None:
    world.receipt_while_settling = MessageState.READ
    await send(sending)
    assert world.callers == {CALLER}


async def test_a_session_that_stays_takes_sends_again(world: World) -> None:
    sessions: Any = Sessions()
    everything: Any = world
    sending = MessageSender(lambda _: sessions, world.of, everything)
    async with sending.paused("anna", 1) as is_idle:
        assert is_idle
        with pytest.raises(Unavailable) as refused:
            await send(sending)
        assert refused.value.reason == "SESSION_NOT_CONNECTED"
        assert not world.kept, "nothing was begun"
    assert (await send(sending)).state is MessageState.SENT


async def test_a_pause_waits_for_what_is_being_sent(world: World, sending: MessageSender) -> None:
    world.holds_sends = asyncio.Event()
    under_way = asyncio.create_task(send(sending))
    await asyncio.sleep(0)
    assert sending.is_sending("anna")
    assert not sending.is_sending("berta")
    async with sending.paused("anna", 0.01) as is_idle:
        assert not is_idle
    asyncio.get_running_loop().call_soon(world.holds_sends.set)
    async with sending.paused("anna", 5) as is_idle:
        assert is_idle
    assert (await under_way).state is MessageState.SENT
    assert not sending.is_sending("anna")


async def test_a_node_that_stops_takes_no_more(world: World, sending: MessageSender) -> None:
    await sending.finish(1)
    with pytest.raises(Unavailable) as refused:
        await send(sending)
    assert refused.value.reason == "NODE_DRAINING"
    assert not world.kept


def test_early_receipts_forget_the_oldest_and_do_not_go_backwards() -> None:
    receipts = EarlyReceipts()
    receipts.remember(["a"], MessageState.READ)
    receipts.remember(["a"], MessageState.DELIVERED)
    assert receipts.pop("a") is MessageState.READ
    assert receipts.pop("a") is None
    receipts.remember([str(number) for number in range(MAX_RECEIPTS + 1)], MessageState.DELIVERED)
    assert receipts.pop("0") is None
    receipts.forget(["1"])
    assert receipts.pop("1") is None
    assert receipts.pop("2") is MessageState.DELIVERED


def test_early_receipts_are_not_kept_for_ever() -> None:
    now = 0.0
    receipts = EarlyReceipts(lambda: now)
    receipts.remember(["a", "b"], MessageState.DELIVERED)
    now = KEEP_S - 1
    receipts.remember(["b"], MessageState.READ)
    now = KEEP_S + 1
    receipts.remember(["c"], MessageState.DELIVERED)
    assert receipts.pop("a") is None
    assert receipts.pop("b") is MessageState.READ
    assert receipts.pop("c") is MessageState.DELIVERED


async def test_turns_come_one_at_a_time_and_leave_nothing() -> None:
    turns, inside = KeyedLock(), 0

    async def take() -> None:
        nonlocal inside
        async with turns.acquire("key"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    tasks = [asyncio.create_task(take()) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.wait(tasks)
    assert len(turns) == 0
