"""service.ports.SessionStore: what its fake does, Postgres does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime

import asyncpg
import pytest

from service.domain.caller import ANONYMOUS
from service.domain.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidArgument, NotFound
from service.domain.events import PairingProgress, StateChanged
from service.domain.pairing import PairingOutcome
from service.domain.session import Activate, Condition, Credentials, Deactivate, Desired, Input, State, Transition
from service.domain.session import reduce as transition_of
from service.ports.sessions import Changes, Decide, NewSession, SessionFilter, SessionStore
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.sessions import PostgresSessions
from tests.fakes.session_store import FakeSessionStore

ANNA = NewSession("anna", "Anna", "user-1", {"team": "red"}, "socks5://proxy.example:1080", "request-1")


@pytest.fixture(params=["fake", "Postgres"])
async def store(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[SessionStore]:
    if request.param == "fake":
        yield FakeSessionStore()
        return
    database = Database(database_url, name="test")
    await database.open()
    yield PostgresSessions(ANONYMOUS, database, encode_payload)
    await database.close()


def by(cause: Input) -> Decide:
    return lambda condition, now: transition_of(condition, cause, now)


def paired(condition: Condition, now: datetime) -> Transition:
    """As its owner does at the first login."""
    return Transition(Condition(Desired.ACTIVE, State.CONNECTED, credentials=Credentials.CONFIRMED))


async def test_a_session_has_what_its_caller_gave(store: SessionStore) -> None:
    made = await store.create(ANNA)
    assert (made.session_id, made.name, made.user_id, dict(made.labels)) == ("anna", "Anna", "user-1", {"team": "red"})
    assert (made.proxy_url, made.condition, made.owner) == (ANNA.proxy_url, Condition(), None)
    assert made.etag
    assert await store.get("anna") == made


async def test_the_same_request_gives_the_same_session(store: SessionStore) -> None:
    made = await store.create(ANNA)
    assert await store.create(ANNA) == made
    for changed in (replace(ANNA, name="Berta"), replace(ANNA, session_id="berta"), replace(ANNA, labels={})):
        with pytest.raises(InvalidArgument) as reused:
            await store.create(changed)
        assert reused.value.reason == "REQUEST_ID_REUSED"
        assert [violation.field for violation in reused.value.violations] == ["request_id"]


@pytest.mark.parametrize("request_id", ["", "request-2"])
async def test_an_id_that_is_taken_is_refused_though_the_content_is_the_same(
    store: SessionStore, request_id: str
) -> None:
    await store.create(replace(ANNA, request_id=""))
    with pytest.raises(AlreadyExists) as taken:
        await store.create(replace(ANNA, request_id=request_id))
    assert (taken.value.reason, taken.value.metadata["session_id"]) == ("SESSION_ALREADY_EXISTS", "anna")


async def test_a_list_is_in_order_filtered_and_limited(store: SessionStore) -> None:
    for name in ("c", "a", "d", "b"):
        labels = {"team": "red", "odd": str(name in "ac")}
        await store.create(NewSession(name, "", f"user-{name in 'ab'}", labels, "", ""))
    await store.decide("b", by(Activate()))

    async def found(after: str = "", limit: int = 10, **chosen: object) -> str:
        wanted = replace(SessionFilter(), **chosen)  # type: ignore[arg-type]
        return "".join(session.session_id for session in await store.list(wanted, after, limit))

    assert await found() == "abcd"
    assert await found("a", 2) == "bc"
    assert await found(user_id="user-True") == "ab"
    assert await found(labels={"team": "red", "odd": "True"}) == "ac"
    assert await found(labels={"team": "blue"}) == ""
    assert await found(states=(State.PAIRING,)) == "b"
    assert await found(states=(State.UNPAIRED, State.PAIRING), user_id="user-True") == "ab"


async def test_an_update_changes_what_is_given_and_the_etag(store: SessionStore) -> None:
    made = await store.create(ANNA)
    changed = await store.update("anna", Changes(name="", labels={}), made.etag)
    assert (changed.name, changed.user_id, dict(changed.labels)) == ("", "user-1", {})
    assert changed.proxy_url == made.proxy_url
    assert changed.etag != made.etag
    with pytest.raises(Conflict):
        await store.update("anna", Changes(name="Eve"), made.etag)
    assert (await store.update("anna", Changes(name="Eve"), "")).name == "Eve"


async def test_a_decision_is_written_with_its_events_and_its_pairing(store: SessionStore) -> None:
    made = await store.create(ANNA)
    active, transition, events = await store.decide("anna", by(Activate()))
    assert (active.condition, active.etag != made.etag) == (transition.condition, True)
    assert (active.condition.desired, active.condition.state) == (Desired.ACTIVE, State.PAIRING)
    assert [(event.session_id, event.sequence) for event in events] == [("anna", 1)]
    assert [event.payload for event in events] == [StateChanged(State.UNPAIRED, State.PAIRING, "")]
    session, pairing = await store.pairing("anna")
    assert (session, pairing.code, pairing.outcome) == (active, None, None)

    again, _, none = await store.decide("anna", by(Activate()))
    assert (again.etag, list(none)) == (active.etag, [])

    _, _, events = await store.decide("anna", by(Deactivate()))
    assert [event.sequence for event in events] == list(range(2, 2 + len(events)))
    assert [type(event.payload) for event in events] == [PairingProgress, StateChanged]
    session, pairing = await store.pairing("anna")
    assert session.condition.desired is Desired.INACTIVE
    assert pairing.outcome is PairingOutcome.CANCELLED


async def test_a_decision_that_raises_changes_nothing(store: SessionStore) -> None:
    made = await store.create(ANNA)

    def refuse(condition: Condition, now: datetime) -> Transition:
        raise FailedPrecondition("no", reason="NO")

    with pytest.raises(FailedPrecondition):
        await store.decide("anna", refuse)
    assert await store.get("anna") == made


async def test_a_paired_session_is_deleted_by_force_alone(store: SessionStore, database_url: str) -> None:
    await store.create(ANNA)
    if not isinstance(store, FakeSessionStore):
        # Postgres has no credentials without the identity that a scan has bound.
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE zap.session SET identity_key = sha256('anna')")
        await connection.close()
    await store.decide("anna", paired)
    with pytest.raises(FailedPrecondition) as refused:
        await store.delete("anna", force=False)
    assert refused.value.reason == "SESSION_PAIRED"
    await store.delete("anna", force=True)
    with pytest.raises(NotFound):
        await store.get("anna")
    assert (await store.create(ANNA)).condition == Condition()


async def test_what_is_not_there_is_not_found(store: SessionStore) -> None:
    for call in (
        store.get("anna"),
        store.update("anna", Changes(name="x"), ""),
        store.delete("anna", force=True),
        store.decide("anna", by(Activate())),
        store.pairing("anna"),
    ):
        with pytest.raises(NotFound) as missing:
            await call
        assert missing.value.metadata["session_id"] == "anna"
