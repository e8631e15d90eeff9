"""service.ports.MessageStore: what its fake does, Postgres does."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.domain.errors import InvalidArgument, NotFound, ResourceExhausted
from service.domain.lease import Lease
from service.domain.records import (
    MessageFilter,
    MessageKind,
    MessagePosition,
    MessageState,
    NewMessage,
    OutboundMessage,
    Outcome,
)
from service.domain.send_failures import SendFailure
from service.domain.session import Activate
from service.ports.messages import MessageStore, SendQueueStore
from service.store.messages import MAX_QUEUED
from tests.contents import text_content
from tests.fakes.message_store import FakeMessageStore
from tests.integration.test_store import Store, store

TO = "4915100000001@s.whatsapp.net"
__all__ = ["store"]
ALL = MessageFilter()
THEN = datetime(2026, 3, 1, tzinfo=UTC)
SENT = Outcome(MessageState.SENT, "WA1", sent=THEN)


@pytest.fixture(params=["fake", "Postgres"])
async def place(request: pytest.FixtureRequest, store: Store) -> AsyncIterator["Place"]:
    """A store, and a lease of session anna."""
    if request.param == "fake":
        fake = FakeMessageStore()
        yield fake, fake, Lease("anna", 1, uuid.uuid4())
    else:
        await store.create("anna")
        await store.wish("anna", Activate())
        yield store.messages, store.send_queue, await store.own("anna")


Place = tuple[MessageStore, SendQueueStore, Lease]


async def accept(
    messages: MessageStore, lease: Lease, request_id: str, fingerprint: bytes = b"f", *, begin: bool = True
) -> tuple[OutboundMessage, bool]:
    new = NewMessage(request_id, TO, text_content(request_id), fingerprint)
    return await messages.accept(lease, new, request_id.encode(), begin=begin)


async def test_a_message_is_accepted_once(place: Place) -> None:
    messages, _, lease = place
    assert await messages.find("anna", "r", b"f") is None
    message, is_new = await accept(messages, lease, "r")
    assert (message.session_id, message.request_id, message.to, message.epoch) == ("anna", "r", TO, lease.epoch)
    assert (message.state, message.message_id, message.sent_time, is_new) == (MessageState.ACCEPTED, "", None, True)
    assert await accept(messages, lease, "r") == (message, False)
    assert await messages.find("anna", "r", b"f") == await messages.find("anna", "r", None) == message
    _, is_new = await accept(messages, lease, "r2")
    assert is_new


async def test_a_message_keeps_its_kind_and_the_chat_that_whatsapp_names(place: Place) -> None:
    messages, queue, lease = place
    new = NewMessage("r", TO, text_content("r"), b"f", MessageKind.EDIT)
    accepted, _ = await messages.accept(lease, new, b"s", begin=True)
    assert (accepted.kind, accepted.chat) == (MessageKind.EDIT, "")
    sent = await queue.settle("anna", "r", lease.epoch, replace(SENT, chat="123@lid"))
    assert (sent.kind, sent.chat) == (MessageKind.EDIT, "123@lid")
    assert await messages.find("anna", "r", None) == sent
    other, _ = await accept(messages, lease, "r2")
    assert other.kind is MessageKind.MESSAGE


async def test_a_request_id_stands_for_one_content(place: Place) -> None:
    messages, _, lease = place
    await accept(messages, lease, "r")
    for call in (accept(messages, lease, "r", b"other"), messages.find("anna", "r", b"other")):
        with pytest.raises(InvalidArgument) as reused:
            await call
        assert reused.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    "outcome",
    [
        SENT,
        Outcome(MessageState.FAILED, detail="no", failure=SendFailure.ACCOUNT_RESTRICTED),
        Outcome(MessageState.OUTCOME_UNKNOWN, detail="the process ended"),
    ],
)
async def test_an_outcome_is_stored_once(place: Place, outcome: Outcome) -> None:
    messages, queue, lease = place
    await accept(messages, lease, "r")
    settled = await queue.settle("anna", "r", lease.epoch, outcome)
    assert (settled.state, settled.message_id, settled.detail) == (outcome.state, outcome.message_id, outcome.detail)
    assert (settled.sent_time, settled.failure) == (outcome.sent, outcome.failure)
    assert await queue.settle("anna", "r", lease.epoch, Outcome(MessageState.SENT, "WA2", sent=THEN)) == settled
    assert await messages.find("anna", "r", None) == settled


async def test_an_outcome_of_a_deleted_session_is_not_found(place: Place) -> None:
    with pytest.raises(NotFound):
        await place[1].settle("anna", "r", 1, SENT)


async def test_a_receipt_only_moves_a_message_forward(place: Place) -> None:
    messages, queue, lease = place
    await accept(messages, lease, "r")
    await queue.settle("anna", "r", lease.epoch, SENT)
    for state, expected, moved in (
        (MessageState.DELIVERED, MessageState.DELIVERED, ["WA1"]),
        (MessageState.READ, MessageState.READ, ["WA1"]),
        (MessageState.DELIVERED, MessageState.READ, []),
    ):
        assert list(await queue.delivered("anna", ["WA1", "unknown"], state)) == moved
        found = await messages.find("anna", "r", None)
        assert found is not None
        assert found.state is expected
    assert list(await queue.delivered("other", ["WA1"], MessageState.READ)) == []


async def test_a_message_begins_at_once_unless_others_wait(place: Place) -> None:
    messages, _, lease = place
    first, _ = await accept(messages, lease, "1")
    second, _ = await accept(messages, lease, "2", begin=False)
    third, _ = await accept(messages, lease, "3")
    assert [message.is_queued for message in (first, second, third)] == [False, True, True]


async def test_messages_that_wait_begin_in_their_order_with_what_was_stored(place: Place) -> None:
    messages, queue, lease = place
    for request_id in ("b", "a", "c"):
        await accept(messages, lease, request_id, begin=False)
    for request_id in ("b", "a", "c"):
        begun = await queue.begin_next(lease)
        assert begun is not None
        assert (begun.message.request_id, begun.content, begun.secret) == (
            request_id,
            text_content(request_id),
            request_id.encode(),
        )
        assert not begun.message.is_queued
        await queue.settle("anna", request_id, lease.epoch, replace(SENT, message_id=request_id))
    assert await queue.begin_next(lease) is None


async def test_what_did_not_leave_waits_in_its_old_place(place: Place) -> None:
    messages, queue, lease = place
    await accept(messages, lease, "1")
    await accept(messages, lease, "2", begin=False)
    await queue.requeue(lease, "1")
    begun = await queue.begin_next(lease)
    assert begun is not None
    assert begun.message.request_id == "1"


async def test_a_settled_message_does_not_wait_again(place: Place) -> None:
    messages, queue, lease = place
    await accept(messages, lease, "1")
    await queue.settle("anna", "1", lease.epoch, SENT)
    await queue.requeue(lease, "1")
    assert await queue.begin_next(lease) is None


async def test_a_receipt_settles_a_message_whose_outcome_was_unknown(place: Place) -> None:
    messages, queue, lease = place
    await accept(messages, lease, "1")
    await queue.settle("anna", "1", lease.epoch, Outcome(MessageState.OUTCOME_UNKNOWN, "WA1", "no answer"))
    assert await queue.delivered("anna", ["WA1"], MessageState.DELIVERED) == ["WA1"]
    found = await messages.find("anna", "1", None)
    assert found is not None
    assert found.state is MessageState.DELIVERED


async def test_messages_are_listed_newest_first_by_filters_and_pages(place: Place) -> None:
    messages, queue, lease = place
    for request_id in ("1", "2", "3", "4"):
        await accept(messages, lease, request_id)
    await queue.settle("anna", "2", lease.epoch, replace(SENT, chat="7@lid"))

    async def listed(chosen: MessageFilter = ALL, after: MessagePosition | None = None, limit: int = 10) -> list[str]:
        return [message.request_id for message in await messages.list("anna", chosen, after, limit)]

    assert await listed() == ["4", "3", "2", "1"]
    first = await messages.list("anna", ALL, None, 2)
    assert [message.request_id for message in first] == ["4", "3"]
    last = MessagePosition(first[-1].create_time, first[-1].request_id)
    assert await listed(after=last) == ["2", "1"]
    assert await listed(MessageFilter(states=(MessageState.SENT,))) == ["2"]
    assert await listed(MessageFilter(chat="7@lid")) == ["2"]
    assert await listed(MessageFilter(chat=TO)) == ["4", "3", "2", "1"]
    assert await listed(MessageFilter(chat="8@lid")) == []
    assert await listed(MessageFilter(since=datetime.now(UTC) + timedelta(hours=1))) == []
    assert list(await messages.list("other", ALL, None, 10)) == []


async def test_only_a_message_that_waits_is_cancelled(place: Place) -> None:
    messages, queue, lease = place
    await accept(messages, lease, "1")
    await accept(messages, lease, "2", begin=False)
    begun, waiting = await messages.cancel("anna", "1"), await messages.cancel("anna", "2")
    assert begun is not None
    assert begun.state is MessageState.ACCEPTED
    assert waiting is not None
    assert (waiting.state, waiting.failure, waiting.is_queued) == (MessageState.FAILED, SendFailure.CANCELLED, False)
    assert await queue.begin_next(lease) is None
    assert await messages.cancel("anna", "other") is None


async def test_a_full_queue_takes_no_message(place: Place) -> None:
    messages, _, lease = place
    for number in range(MAX_QUEUED):
        await accept(messages, lease, str(number), begin=False)
    with pytest.raises(ResourceExhausted) as refused:
        await accept(messages, lease, "one more")
    assert refused.value.reason == "SEND_QUEUE_FULL"
    assert await messages.find("anna", "one more", None) is None
    assert (await accept(messages, lease, "0"))[1] is False, "a repeated call is answered"
