"""service.ports.MessageStore: what its fake does, Postgres does."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from service.domain.errors import InvalidArgument, NotFound
from service.domain.lease import Lease
from service.domain.records import MessageState, Outcome
from service.domain.send_failures import SendFailure
from service.domain.session import Activate
from service.ports.messages import MessageStore
from tests.fakes.message_store import FakeMessageStore
from tests.integration.test_store import Store, store

TO = "4915100000001@s.whatsapp.net"
__all__ = ["store"]
THEN = datetime(2026, 3, 1, tzinfo=UTC)
SENT = Outcome(MessageState.SENT, "WA1", sent=THEN)


@pytest.fixture(params=["fake", "Postgres"])
async def place(request: pytest.FixtureRequest, store: Store) -> AsyncIterator[tuple[MessageStore, Lease]]:
    """A store, and a lease of session anna."""
    if request.param == "fake":
        yield FakeMessageStore(), Lease("anna", 1, uuid.uuid4())
    else:
        await store.create("anna")
        await store.wish("anna", Activate())
        yield store.messages, await store.own("anna")


async def test_a_message_is_accepted_once(place: tuple[MessageStore, Lease]) -> None:
    messages, lease = place
    assert await messages.find("anna", "r", b"f") is None
    message, is_new = await messages.accept(lease, "r", TO, b"f")
    assert (message.session_id, message.request_id, message.to, message.epoch) == ("anna", "r", TO, lease.epoch)
    assert (message.state, message.message_id, message.sent_time, is_new) == (MessageState.ACCEPTED, "", None, True)
    assert await messages.accept(lease, "r", TO, b"f") == (message, False)
    assert await messages.find("anna", "r", b"f") == await messages.find("anna", "r", None) == message
    _, is_new = await messages.accept(lease, "r2", TO, b"f")
    assert is_new


async def test_a_request_id_stands_for_one_content(place: tuple[MessageStore, Lease]) -> None:
    messages, lease = place
    await messages.accept(lease, "r", TO, b"f")
    for call in (messages.accept(lease, "r", TO, b"other"), messages.find("anna", "r", b"other")):
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
async def test_an_outcome_is_stored_once(place: tuple[MessageStore, Lease], outcome: Outcome) -> None:
    messages, lease = place
    await messages.accept(lease, "r", TO, b"f")
    settled = await messages.settle("anna", "r", outcome)
    assert (settled.state, settled.message_id, settled.detail) == (outcome.state, outcome.message_id, outcome.detail)
    assert (settled.sent_time, settled.failure) == (outcome.sent, outcome.failure)
    assert await messages.settle("anna", "r", Outcome(MessageState.SENT, "WA2", sent=THEN)) == settled
    assert await messages.find("anna", "r", None) == settled


async def test_an_outcome_of_a_deleted_session_is_not_found(place: tuple[MessageStore, Lease]) -> None:
    with pytest.raises(NotFound):
        await place[0].settle("anna", "r", SENT)


async def test_a_receipt_only_moves_a_message_forward(place: tuple[MessageStore, Lease]) -> None:
    messages, lease = place
    await messages.accept(lease, "r", TO, b"f")
    await messages.settle("anna", "r", SENT)
    for state, expected, moved in (
        (MessageState.DELIVERED, MessageState.DELIVERED, ["WA1"]),
        (MessageState.READ, MessageState.READ, ["WA1"]),
        (MessageState.DELIVERED, MessageState.READ, []),
    ):
        assert list(await messages.delivered("anna", ["WA1", "unknown"], state)) == moved
        found = await messages.find("anna", "r", None)
        assert found is not None
        assert found.state is expected
    assert list(await messages.delivered("other", ["WA1"], MessageState.READ)) == []
