"""Between the domain and zap.v1: every value there is has its message, and comes back as it was."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import reasons
from service.domain.events import Event, PairingProgress, Payload, StateChanged
from service.domain.observations import InboundEvent
from service.domain.pairing import PairingOutcome
from service.domain.records import Account, Evidence, MessageState, OutboundMessage, Owner, Session, StoredCredentials
from service.domain.send_failures import SEND_FAILURES, SendFailure
from service.domain.session import Condition, Desired, State
from service.protocol.events import encode_payload, event_message, to_json
from service.protocol.messages import outbound_message
from service.protocol.sessions import session_message
from zap.v1 import event_pb2, message_pb2, session_pb2

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def told(kind: str, **payload: Any) -> InboundEvent:
    event = event_pb2.Event(type=event_pb2.Event.Type.Value(f"TYPE_{kind}"), **payload)
    return InboundEvent(kind, event.SerializeToString())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive
codes = st.sampled_from(["", *(reason.code for reason in reasons.REASONS.values()), "FROM_A_LATER_RELEASE"])
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(StateChanged, st.sampled_from(State), st.sampled_from(State), codes),
    st.builds(
        PairingProgress,
        st.none() | moments,
        st.integers(0, 6),
        st.none() | st.sampled_from(PairingOutcome),
        codes,
    ),
    st.builds(
        lambda text, raw: told(
            "MESSAGE_RECEIVED", message_received=event_pb2.MessageReceived(message_id="A", text=text, raw=raw)
        ),
        texts,
        st.binary(max_size=50),
    ),
    st.builds(
        lambda ids: told("RECEIPT", receipt=event_pb2.Receipt(message_ids=ids, kind=event_pb2.Receipt.KIND_READ)),
        st.lists(texts),
    ),
)
events = st.builds(Event, st.integers(1, 2**62), texts, st.integers(1, 2**62), moments, payloads)


def session(condition: Condition | None = None) -> Session:
    return Session(
        session_id="a",
        name="Ada",
        user_id="u",
        labels={"k": "v"},
        proxy_url="socks5://user:hunter2@proxy.example:1080",
        condition=condition or Condition(),
        account=Account("4917612345678:3@s.whatsapp.net", "123@lid", "Ada", "android"),
        owner=Owner("node-1", 7, NOW + timedelta(seconds=10)),
        evidence=Evidence(NOW, None, NOW, None),
        credentials=StoredCredentials(1234, NOW),
        create_time=NOW,
        update_time=NOW,
        etag="3",
    )


@given(events, texts)
def test_what_comes_out_of_the_log_is_told_as_what_went_into_it(event: Event, token: str) -> None:
    kind, data = encode_payload(event.payload)
    kept = event_message(replace(event, payload=InboundEvent(kind, data)), token)
    assert kept == event_message(event, token)
    assert event_pb2.Event.Type.Name(kept.type) == f"TYPE_{kind}"
    assert (kept.id, kept.session_id, kept.sequence) == (str(event.id), event.session_id, event.sequence)
    assert kept.resume_token == token
    assert kept.time.ToDatetime(tzinfo=UTC) == event.time
    assert kept.WhichOneof("payload")


def test_a_payload_of_a_later_release_goes_through_whole() -> None:
    a_later_type, a_later_field = b"\x30\xe7\x07", b"\xfa\x3f\x03new"
    event = Event(1, "a", 2, NOW, InboundEvent("FROM_LATER", a_later_type + a_later_field))
    message = event_message(event)
    assert message.type == 999
    assert a_later_field in message.SerializeToString()


@given(events)
def test_an_event_on_redis_is_one_line_of_protobuf_json(event: Event) -> None:
    line = to_json(event, "t")
    assert "\n" not in line
    assert json.loads(line)["sessionId" if event.session_id else "id"]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("desired", Desired)
def test_every_state_has_its_number(state: State, desired: Desired) -> None:
    message = session_message(session(Condition(desired, state)))
    assert session_pb2.Session.State.Name(message.state) == f"STATE_{state.value}"
    assert session_pb2.Session.DesiredState.Name(message.desired_state) == f"DESIRED_STATE_{desired.value}"


def test_the_enums_of_both_sides_have_the_same_values() -> None:
    for numbers, prefix, values in (
        (session_pb2.Session.State, "STATE_", State),
        (session_pb2.Session.DesiredState, "DESIRED_STATE_", Desired),
        (session_pb2.PairingOutcome, "PAIRING_OUTCOME_", PairingOutcome),
        (message_pb2.Message.State, "STATE_", MessageState),
    ):
        assert {name.removeprefix(prefix) for name in numbers.keys()[1:]} == {value.name for value in values}


@pytest.mark.parametrize("reason", reasons.REASONS.values(), ids=lambda reason: reason.code)
def test_every_reason_comes_with_its_sentence(reason: reasons.Reason) -> None:
    message = session_message(session(Condition(reason=reason.code))).reason
    assert (message.code, message.message, message.user_action) == (reason.code, reason.message, reason.user_action)


def test_a_session_is_shown_whole_and_without_its_password() -> None:
    shown = session_message(session(Condition(attempts=4, next_attempt=NOW)))
    assert shown.proxy_url == "socks5://user:***@proxy.example:1080"
    assert "hunter2" not in str(shown)
    assert shown.account.phone == "+4917612345678"
    assert (shown.owner.node, shown.owner.epoch) == ("node-1", 7)
    assert shown.evidence.attempts == 4
    assert shown.evidence.next_attempt_time.ToDatetime(tzinfo=UTC) == NOW
    assert not shown.evidence.HasField("last_disconnected_time")
    assert (shown.credentials.present, shown.credentials.size) == (True, 1234)
    assert not shown.HasField("reason")


def test_a_session_that_waits_for_its_turn_says_so_instead_of_why_it_fell() -> None:
    fallen = Condition(Desired.ACTIVE, State.RECONNECTING, "NODE_STOPPED")
    shown = session_message(replace(session(fallen), waits_for_start=True))
    assert (shown.reason.code, shown.state) == ("WAITING_FOR_TURN", session_pb2.Session.STATE_RECONNECTING)
    assert session_message(session(fallen)).reason.code == "NODE_STOPPED"


def test_what_is_not_known_is_not_set() -> None:
    empty = replace(session(), account=Account(), owner=None, credentials=StoredCredentials(), evidence=Evidence())
    shown = session_message(empty)
    assert not shown.HasField("account")
    assert not shown.HasField("owner")
    assert not shown.credentials.present
    assert not shown.credentials.HasField("create_time")


@pytest.mark.parametrize("state", MessageState)
def test_every_message_state_has_its_number_and_a_reason_if_it_is_bad(state: MessageState) -> None:
    message = outbound_message(OutboundMessage("a", "r", "1@lid", 1, state, "", "the phone is off", NOW, None, NOW))
    assert message_pb2.Message.State.Name(message.state) == f"STATE_{state.value}"
    bad = state in {MessageState.FAILED, MessageState.OUTCOME_UNKNOWN}
    assert message.HasField("reason") == bad
    assert not bad or message.reason.message.endswith(" (the phone is off).")
    assert not (message.HasField("unreadable_since_time") or message.is_resend_failed)


@pytest.mark.parametrize("failure", SendFailure)
def test_every_kind_of_failure_has_a_reason_of_its_own(failure: SendFailure) -> None:
    failed = OutboundMessage("a", "r", "1@lid", 1, MessageState.FAILED, "", "", NOW, None, NOW, failure=failure)
    reason = outbound_message(failed).reason
    assert (reason.code, reason.message[-1], reason.user_action[-1]) == (failure.value, ".", ".")


def test_nothing_is_to_be_sent_again_where_that_is_harmful() -> None:
    advice = {failure: reason.user_action for failure, reason in SEND_FAILURES.items()}
    assert "request_id" not in advice[SendFailure.ACCOUNT_RESTRICTED]
    assert {failure for failure, words in advice.items() if "again" in words} == {SendFailure.NOT_SENT}
    assert advice[SendFailure.RATE_LIMITED].startswith("Wait")


def test_a_message_says_since_when_a_device_cannot_read_it() -> None:
    sent = OutboundMessage(
        "a", "r", "1@lid", 1, MessageState.SENT, "3EB0", "", NOW, NOW, NOW, NOW, is_resend_failed=True
    )
    message = outbound_message(sent)
    assert message.unreadable_since_time.ToDatetime(tzinfo=UTC) == NOW
    assert message.is_resend_failed
