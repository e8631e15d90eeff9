"""Sending where the end-to-end tests do not get: lost answers, early receipts, ends of processes."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.domain.caller import Caller
from service.domain.errors import NotFound, Unavailable
from service.domain.lease import Lease
from service.domain.records import MessageState, NewMessage, OutboundMessage, Outcome, TypedPayload
from service.domain.send_failures import SendFailure
from service.domain.session import Condition, Credentials, Desired, State
from service.messaging import send_queue, send_rate, sender
from service.messaging.keyed_lock import KeyedLock
from service.messaging.send_rate import SendLimit
from service.messaging.sender import MessageSender
from service.ports.processes import CallFailed, SendReply
from service.sessions.early_receipts import KEEP_S, MAX_RECEIPTS, EarlyReceipts
from tests.contents import text_content
from tests.eventually import eventually
from tests.fakes.message_store import FakeMessageStore

NOW = datetime.now(UTC)
LEASE = Lease("anna", 3, uuid4())
CALLER = Caller("key-1")
TO = "4915100000001@s.whatsapp.net"
HELLO = text_content("hello")


class Store(FakeMessageStore):
    """A store with faults to be switched on."""

    def __init__(self) -> None:
        super().__init__()
        self.accepts_to_lose = 0
        """Accepts that are committed and whose answer is lost."""
        self.settles_to_lose = 0
        self.is_deleted_while_sending = False
        self.receipt_while_settling: MessageState | None = None
        self.early_receipts = EarlyReceipts()

    async def accept(
        self, lease: Lease, new: NewMessage, secret: bytes, *, begin: bool
    ) -> tuple[OutboundMessage, bool]:
        answer = await super().accept(lease, new, secret, begin=begin)
        await asyncio.sleep(0)
        self.accepts_to_lose -= 1
        if self.accepts_to_lose >= 0:
            raise Unavailable("the commit came through, its answer did not")
        return answer

    async def settle(self, session_id: str, request_id: str, epoch: int, outcome: Outcome) -> OutboundMessage:
        self.settles_to_lose -= 1
        if self.settles_to_lose >= 0:
            raise Unavailable("the database is away")
        if self.is_deleted_while_sending:
            raise NotFound("deleted, with all its messages")
        if self.receipt_while_settling is not None:
            self.early_receipts.remember([outcome.message_id], self.receipt_while_settling)
        return await super().settle(session_id, request_id, epoch, outcome)


class World:
    """A connected session, its process and its messages. It is the registry, the runner and the process."""

    def __init__(self) -> None:
        self.incarnation = UUID(int=1)
        self.store = Store()
        self.early_receipts = self.store.early_receipts
        self.connection: tuple[Lease, World] | None = (LEASE, self)
        self.sent: list[TypedPayload] = []
        self.secrets: list[bytes] = []
        self.process_fault: Exception | None = None
        self.holds_sends: asyncio.Event | None = None
        self.in_library = 0
        self.most_in_library = 0
        self.restarts = 0
        self.callers: set[Caller] = set()
        """On whose behalf messages were asked for."""

    def of(self, caller: Caller) -> Any:
        """The store, for a caller."""
        self.callers.add(caller)
        return self.store

    def get(self, session_id: str) -> "World":
        return self

    def restart(self) -> None:
        self.restarts += 1

    async def send(self, to: str, content: TypedPayload, timeout: float, secret: bytes) -> SendReply:
        self.in_library += 1
        self.most_in_library = max(self.most_in_library, self.in_library)
        try:
            self.sent.append(content)
            self.secrets.append(secret)
            await asyncio.sleep(0)
            if self.holds_sends is not None:
                await self.holds_sends.wait()
            if self.process_fault is not None:
                raise self.process_fault
            return SendReply(f"WA{len(self.sent)}", NOW)
        finally:
            self.in_library -= 1


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
    sessions: Any = Sessions()
    everything: Any = world
    return MessageSender(lambda _: sessions, world.of, world.store, everything)


async def send(sending: MessageSender, request_id: str = "r1", timeout: float = 5) -> OutboundMessage:
    content = HELLO if request_id == "r1" else text_content(request_id)
    return await sending.send(CALLER, "anna", NewMessage(request_id, TO, content, b"fingerprint"), timeout)


async def test_an_intent_whose_answer_was_lost_is_carried_out_by_the_next_try(
    world: World, sending: MessageSender
) -> None:
    world.store.accepts_to_lose = 1
    with pytest.raises(Unavailable):
        await send(sending)
    assert world.sent == []
    assert (await send(sending)).state is MessageState.SENT
    assert (await send(sending)).state is MessageState.SENT
    assert world.sent == [HELLO]


async def test_what_a_fault_of_ours_may_have_sent_is_not_sent_again(world: World, sending: MessageSender) -> None:
    world.process_fault = RuntimeError("a fault of ours")
    assert (await send(sending, timeout=0.3)).state is MessageState.ACCEPTED
    world.process_fault = None
    assert (await send(sending, timeout=0.3)).state is MessageState.ACCEPTED
    assert world.sent == [HELLO]
    assert (await send(sending, "r2")).state is MessageState.SENT, "the others go on"


async def test_of_a_session_that_is_deleted_meanwhile_nothing_is_sent_any_more(
    world: World, sending: MessageSender
) -> None:
    world.store.is_deleted_while_sending = True
    await send(sending, timeout=0.3)
    assert not sending.is_sending("anna")


async def test_each_message_gets_a_secret_of_its_own(world: World, sending: MessageSender) -> None:
    for request_id in ("r1", "r2"):
        await sending.send(CALLER, "anna", NewMessage(request_id, TO, HELLO, b"fingerprint"), timeout=1)
    assert [len(secret) for secret in world.secrets] == [32, 32]
    assert world.secrets[0] != world.secrets[1]


async def test_two_callers_at_once_send_once(world: World, sending: MessageSender) -> None:
    answers = await asyncio.gather(*(send(sending) for _ in range(20)))
    assert {answer.state for answer in answers} == {MessageState.SENT}
    assert world.sent == [HELLO]


async def test_many_callers_send_once_though_some_answers_are_lost(world: World, sending: MessageSender) -> None:
    world.store.accepts_to_lose = 3
    answers = await asyncio.gather(*(send(sending) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, Unavailable) for answer in answers) == 3
    assert world.sent == [HELLO]


async def test_one_message_at_a_time_is_in_the_library_and_all_keep_their_order(
    world: World, sending: MessageSender
) -> None:
    ids = [f"m{number}" for number in range(30)]
    answers = await asyncio.gather(*(send(sending, request_id) for request_id in ids))
    assert {answer.state for answer in answers} == {MessageState.SENT}
    assert world.most_in_library == 1
    assert world.sent == [text_content(request_id) for request_id in ids]
    assert len(set(world.secrets)) == len(ids)
    assert {len(secret) for secret in world.secrets} == {32}


async def test_a_message_that_is_not_sent_in_time_is_sent_later(world: World, sending: MessageSender) -> None:
    world.holds_sends = asyncio.Event()
    first, second = await asyncio.gather(send(sending, "1", timeout=0.2), send(sending, "2", timeout=0.2))
    assert (first.is_queued, second.is_queued) == (False, True)
    assert (first.state, second.state) == (MessageState.ACCEPTED, MessageState.ACCEPTED)
    world.holds_sends.set()
    assert (await send(sending, "2")).state is MessageState.SENT
    assert world.sent == [text_content("1"), text_content("2")]


async def test_what_did_not_leave_is_sent_when_the_session_is_connected_again(
    world: World, sending: MessageSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "QUEUE_CHECK_S", 0.02)
    kind = "SESSION_NOT_CONNECTED"
    world.process_fault = CallFailed("websocket not connected", certain=True, kind=kind, is_answer=True)
    message = await send(sending, timeout=0.3)
    assert (message.state, message.is_queued) == (MessageState.ACCEPTED, True)
    world.process_fault = None
    watching = asyncio.create_task(sending.run())
    assert (await send(sending)).state is MessageState.SENT
    watching.cancel()


async def test_another_process_sends_what_waits(
    world: World, sending: MessageSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "QUEUE_CHECK_S", 0.02)
    await world.store.accept(replace(LEASE, epoch=2), NewMessage("r1", TO, HELLO, b"fingerprint"), b"s", begin=False)
    watching = asyncio.create_task(sending.run())
    assert (await send(sending)).state is MessageState.SENT
    assert world.secrets == [b"s"]
    watching.cancel()


@pytest.mark.parametrize(("is_stored", "state"), [(True, MessageState.OUTCOME_UNKNOWN), (False, MessageState.FAILED)])
async def test_the_library_s_copy_tells_whether_a_message_may_have_left(
    world: World, sending: MessageSender, is_stored: bool, state: MessageState
) -> None:
    world.process_fault = CallFailed("timed out waiting for message send response", certain=False, is_answer=True)
    if is_stored:
        world.store.in_library["anna", "r1"] = "WA7"
    message = await send(sending)
    assert (message.state, message.message_id) == (state, "WA7" if is_stored else "")
    assert (await world.store.delivered("anna", ["WA7"], MessageState.READ)) == (["WA7"] if is_stored else [])


async def test_a_refused_message_is_failed_and_the_next_one_is_sent(world: World, sending: MessageSender) -> None:
    world.process_fault = CallFailed("no", certain=True, kind="ACCOUNT_RESTRICTED", is_answer=True)
    message = await send(sending)
    assert (message.state, message.failure) == (MessageState.FAILED, SendFailure.ACCOUNT_RESTRICTED)
    world.process_fault = None
    assert (await send(sending, "r2")).state is MessageState.SENT


async def test_a_session_that_whatsapp_limits_pauses(
    world: World, sending: MessageSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_rate, "FIRST_PAUSE_S", 0.3)
    world.process_fault = CallFailed("no", certain=True, kind="RATE_LIMITED", is_answer=True)
    assert (await send(sending)).failure is SendFailure.RATE_LIMITED
    world.process_fault = None
    second = asyncio.create_task(send(sending, "2"))
    await eventually(lambda: len(world.store.kept) == 2)
    assert world.store.kept["anna", "2"].is_queued
    assert (await second).state is MessageState.SENT


async def test_messages_above_the_rate_wait(world: World) -> None:
    sessions: Any = Sessions()
    everything: Any = world
    limit = SendLimit(rate=50.0, burst=2)
    sending = MessageSender(lambda _: sessions, world.of, world.store, everything, limit=limit)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(send(sending, str(number)) for number in range(12)))
    # Two at once and ten more at 50 a second: a limiter cannot be faster, whatever the machine does.
    assert asyncio.get_running_loop().time() - began > 0.19
    assert len(world.sent) == 12


async def test_after_a_send_without_an_end_the_process_gets_no_other_and_is_replaced(
    world: World, sending: MessageSender
) -> None:
    world.process_fault = CallFailed("WhatsApp did not answer within 110 seconds", certain=False)
    first, second = await asyncio.gather(send(sending, "1", timeout=0.2), send(sending, "2", timeout=0.2))
    assert (first.state, second.is_queued) == (MessageState.ACCEPTED, True)
    assert world.restarts == 1
    assert world.sent == [text_content("1")]


async def test_an_outcome_is_written_when_the_database_is_back(
    world: World, sending: MessageSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_queue, "RETRY_S", 0.01)
    world.store.settles_to_lose = 3
    assert (await send(sending)).state is MessageState.SENT


async def test_a_receipt_that_came_before_the_outcome_was_written_counts(world: World, sending: MessageSender) -> None:
    world.store.receipt_while_settling = MessageState.READ
    assert (await send(sending)).state is MessageState.READ


async def test_a_message_is_stored_on_behalf_of_its_caller(world: World, sending: MessageSender) -> None:
    await send(sending)
    assert world.callers == {CALLER}


async def test_a_session_that_stays_takes_sends_again(world: World, sending: MessageSender) -> None:
    async with sending.paused("anna", 1) as is_idle:
        assert is_idle
        with pytest.raises(Unavailable) as refused:
            await send(sending)
        assert refused.value.reason == "SESSION_NOT_CONNECTED"
        assert not world.store.kept, "nothing was begun"
    assert (await send(sending)).state is MessageState.SENT


async def test_a_pause_waits_for_what_is_being_sent_and_begins_nothing(world: World, sending: MessageSender) -> None:
    world.holds_sends = asyncio.Event()
    under_way = [asyncio.create_task(send(sending, request_id)) for request_id in ("1", "2")]
    await eventually(lambda: len(world.store.kept) == 2)
    assert sending.is_sending("anna")
    assert not sending.is_sending("berta")
    async with sending.paused("anna", 0.01) as is_idle:
        assert not is_idle
        world.holds_sends.set()
        await eventually(lambda: not sending.is_sending("anna"))
        assert world.sent == [text_content("1")]
    assert {message.state for message in await asyncio.gather(*under_way)} == {MessageState.SENT}


async def test_a_node_that_stops_takes_no_more(world: World, sending: MessageSender) -> None:
    await sending.finish(1)
    with pytest.raises(Unavailable) as refused:
        await send(sending)
    assert refused.value.reason == "NODE_DRAINING"
    assert not world.store.kept


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
