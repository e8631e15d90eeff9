"""The state machine, as tables."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.domain import observations as seen
from service.domain.disconnect_policy import POLICIES, Cause
from service.domain.pairing import PairingOutcome
from service.domain.reasons import REASONS
from service.domain.session import (
    PAIRING_STARTS,
    Activate,
    Condition,
    Credentials,
    Deactivate,
    Desired,
    Directive,
    Input,
    LoggedOutByCaller,
    ProcessStarted,
    Restart,
    State,
    Transition,
    reduce,
    waits_for_start,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=2)
WAIT = timedelta(seconds=7)

NEW = Condition()
PAIRING = Condition(Desired.ACTIVE, State.PAIRING, attempts=1)
SCANNED = replace(PAIRING, credentials=Credentials.UNCONFIRMED)
CONNECTED = Condition(Desired.ACTIVE, State.CONNECTED, credentials=Credentials.CONFIRMED)
CONNECTING = replace(CONNECTED, state=State.CONNECTING, attempts=1)
RECONNECTING = replace(CONNECTED, state=State.RECONNECTING, reason="CONNECTION_LOST", attempts=1)
RESTING = Condition(Desired.INACTIVE, State.DISCONNECTED, "DEACTIVATED", Credentials.CONFIRMED)
FAILED = replace(CONNECTED, state=State.FAILED, reason="STREAM_REPLACED")
SUSPENDED = replace(CONNECTED, state=State.SUSPENDED, reason="TEMPORARILY_BANNED", next_attempt=LATER)
LOGGED_OUT = Condition(Desired.INACTIVE, State.LOGGED_OUT, "LOGGED_OUT_ON_PHONE")

LOGIN = seen.Connected("49:1@s.whatsapp.net", "1@lid", "Anna")

EVERY = (NEW, PAIRING, SCANNED, CONNECTED, CONNECTING, RECONNECTING, RESTING, FAILED, SUSPENDED, LOGGED_OUT)
EVERY_INPUT: tuple[Input, ...] = (
    Activate(),
    Deactivate(),
    LoggedOutByCaller(),
    Restart(),
    ProcessStarted(),
    LOGIN,
    seen.CodeShown("text", 1, timedelta(seconds=60)),
    seen.DeviceSaved("49:1@s.whatsapp.net", "", "android"),
    seen.Disconnected(),
    seen.KeepAliveTimeout(),
    seen.KeepAliveRestored(),
    seen.PushNameChanged("Anna"),
    *(seen.Ended(cause) for cause in Cause),
)


@pytest.mark.parametrize(
    ("before", "cause", "state", "desired", "directive"),
    [
        (NEW, Activate(), State.PAIRING, Desired.ACTIVE, Directive.CONTINUE),
        (RESTING, Activate(), State.CONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (LOGGED_OUT, Activate(), State.PAIRING, Desired.ACTIVE, Directive.CONTINUE),
        (FAILED, Activate(), State.CONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTED, Activate(), State.CONNECTED, Desired.ACTIVE, Directive.CONTINUE),
        (SUSPENDED, Activate(), State.SUSPENDED, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTED, Deactivate(), State.DISCONNECTED, Desired.INACTIVE, Directive.RELEASE),
        (FAILED, Deactivate(), State.DISCONNECTED, Desired.INACTIVE, Directive.RELEASE),
        (PAIRING, Deactivate(), State.UNPAIRED, Desired.INACTIVE, Directive.RELEASE),
        (SCANNED, Deactivate(), State.UNPAIRED, Desired.INACTIVE, Directive.RELEASE),
        (LOGGED_OUT, Deactivate(), State.LOGGED_OUT, Desired.INACTIVE, Directive.RELEASE),
        (CONNECTED, LoggedOutByCaller(), State.LOGGED_OUT, Desired.INACTIVE, Directive.RELEASE),
        (LOGGED_OUT, LoggedOutByCaller(), State.LOGGED_OUT, Desired.INACTIVE, Directive.RELEASE),
        # Written late, by a node that was frozen: another one has seen the logout, and what goes on is a new pairing.
        (PAIRING, LoggedOutByCaller(), State.PAIRING, Desired.ACTIVE, Directive.CONTINUE),
        (SCANNED, LoggedOutByCaller(), State.PAIRING, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTED, Restart(), State.RECONNECTING, Desired.ACTIVE, Directive.REPLACE),
        (SUSPENDED, Restart(), State.RECONNECTING, Desired.ACTIVE, Directive.REPLACE),
        (PAIRING, ProcessStarted(), State.PAIRING, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTING, ProcessStarted(), State.CONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTED, ProcessStarted(), State.RECONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (SUSPENDED, ProcessStarted(), State.RECONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (SCANNED, LOGIN, State.CONNECTED, Desired.ACTIVE, Directive.CONTINUE),
        (RECONNECTING, LOGIN, State.CONNECTED, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTED, seen.Disconnected(), State.RECONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (CONNECTED, seen.KeepAliveTimeout(), State.RECONNECTING, Desired.ACTIVE, Directive.CONTINUE),
        (PAIRING, seen.Disconnected(), State.PAIRING, Desired.ACTIVE, Directive.CONTINUE),
    ],
)
def test_transitions(before: Condition, cause: Input, state: State, desired: Desired, directive: Directive) -> None:
    transition = reduce(before, cause, NOW, WAIT)
    assert (transition.condition.state, transition.condition.desired, transition.directive) == (
        state,
        desired,
        directive,
    )


@pytest.mark.parametrize(
    ("cause", "state", "outcome"),
    [
        (Cause.PROCESS_DIED, State.RECONNECTING, None),
        (Cause.PROCESS_STALLED, State.RECONNECTING, None),
        (Cause.CLIENT_ERROR, State.RECONNECTING, None),
        (Cause.DATABASE_LOST, State.RECONNECTING, None),
        (Cause.UNREACHABLE, State.RECONNECTING, None),
        (Cause.PROXY_REFUSED, State.RECONNECTING, None),
        (Cause.TLS_REFUSED, State.RECONNECTING, None),
        (Cause.CONNECT_STALLED, State.RECONNECTING, None),
        (Cause.WHATSAPP_ERROR, State.RECONNECTING, None),
        (Cause.STREAM_REPLACED, State.RECONNECTING, PairingOutcome.REJECTED),
        (Cause.TEMPORARILY_BANNED, State.SUSPENDED, PairingOutcome.REJECTED),
        (Cause.CLIENT_OUTDATED, State.FAILED, PairingOutcome.REJECTED),
        (Cause.CONNECTION_REFUSED, State.RECONNECTING, PairingOutcome.REJECTED),
        (Cause.LOGGED_OUT_ON_PHONE, State.LOGGED_OUT, PairingOutcome.REJECTED),
        (Cause.LOGGED_OUT_BY_WHATSAPP, State.LOGGED_OUT, PairingOutcome.REJECTED),
        (Cause.ACCOUNT_LOCKED, State.LOGGED_OUT, PairingOutcome.REJECTED),
        (Cause.ACCOUNT_BANNED, State.LOGGED_OUT, PairingOutcome.REJECTED),
        (Cause.DEVICE_MISSING, State.LOGGED_OUT, PairingOutcome.REJECTED),
        (Cause.PAIRING_REFUSED, State.FAILED, PairingOutcome.REJECTED),
        (Cause.CODES_USED_UP, State.FAILED, PairingOutcome.TIMED_OUT),
        (Cause.SCAN_REJECTED, State.FAILED, PairingOutcome.REJECTED),
        (Cause.PASSKEY_REQUIRED, State.FAILED, PairingOutcome.PASSKEY_REQUIRED),
        (Cause.PAIRING_INTERRUPTED, State.RECONNECTING, None),
        (Cause.STOPPED, State.RECONNECTING, None),
    ],
)
def test_what_each_end_means(cause: Cause, state: State, outcome: PairingOutcome | None) -> None:
    paired = reduce(CONNECTED, seen.Ended(cause), NOW, WAIT)
    assert paired.condition.state is state
    assert paired.outcome is None

    for unpaired in (PAIRING, SCANNED):
        ended = reduce(unpaired, seen.Ended(cause), NOW, WAIT)
        assert ended.outcome is outcome
        if outcome is None:
            assert (ended.condition.state, ended.directive) == (State.PAIRING, Directive.REPLACE)
        else:
            assert (ended.condition.state, ended.condition.desired) == (State.UNPAIRED, Desired.INACTIVE)
            assert ended.deletes_credentials, "a device that was refused at its first login was never paired"


def test_the_table_of_causes_is_complete_and_its_reasons_are_known() -> None:
    known = {reason.code for reason in REASONS.values()}
    assert POLICIES.keys() == set(Cause)
    assert {policy.reason for policy in POLICIES.values()} <= known


def test_credentials_are_erased_only_by_what_makes_them_worthless() -> None:
    erased = {cause for cause in Cause if reduce(CONNECTED, seen.Ended(cause), NOW, WAIT).deletes_credentials}
    assert erased == {
        Cause.LOGGED_OUT_ON_PHONE,
        Cause.LOGGED_OUT_BY_WHATSAPP,
        Cause.ACCOUNT_LOCKED,
        Cause.ACCOUNT_BANNED,
        Cause.DEVICE_MISSING,
    }


@pytest.mark.parametrize(("before", "state"), [(CONNECTED, State.RECONNECTING), (CONNECTING, State.CONNECTING)])
def test_a_refusal_that_nobody_knows_is_tried_again_each_hour_and_owned_by_nobody_meanwhile(
    before: Condition, state: State
) -> None:
    refused = reduce(before, seen.Ended(Cause.CONNECTION_REFUSED), NOW, WAIT)
    assert refused.directive is Directive.RELEASE
    assert refused.condition.state is state
    assert refused.condition.next_attempt == NOW + timedelta(hours=1)
    assert refused.condition.desired is Desired.ACTIVE
    hurried = reduce(refused.condition, Restart(), NOW).condition
    assert hurried.next_attempt is None, "a human who knows better need not wait"


@pytest.mark.parametrize("before", [CONNECTED, CONNECTING, SUSPENDED, FAILED, PAIRING])
def test_a_restart_says_itself_what_the_end_of_the_process_would(before: Condition) -> None:
    transition = reduce(before, Restart(), NOW)
    assert transition.condition.reason == "PROCESS_REPLACED"
    assert (transition.condition.attempts, transition.condition.next_attempt) == (0, None)
    assert transition.invalidates_code == (before is PAIRING)


def test_a_first_login_and_no_other_ends_the_pairing() -> None:
    assert reduce(SCANNED, LOGIN, NOW).outcome is PairingOutcome.PAIRED
    assert reduce(PAIRING, LOGIN, NOW).outcome is PairingOutcome.PAIRED
    assert reduce(RECONNECTING, LOGIN, NOW).outcome is None


def test_a_scan_alone_is_not_a_pairing_but_voids_the_code() -> None:
    transition = reduce(PAIRING, seen.DeviceSaved("49:1@s.whatsapp.net", "", "android"), NOW)
    assert transition.condition == SCANNED
    assert transition.invalidates_code
    assert transition.outcome is None


def test_a_connection_that_is_trusted_again_is_connected_again() -> None:
    distrusted = reduce(CONNECTED, seen.KeepAliveTimeout(), NOW).condition
    assert distrusted.reason == "KEEPALIVE_TIMEOUT"
    assert reduce(distrusted, seen.KeepAliveRestored(), NOW).condition == CONNECTED
    assert reduce(RECONNECTING, seen.KeepAliveRestored(), NOW).condition == RECONNECTING


def test_a_session_that_was_replaced_tries_once_more_and_then_fails() -> None:
    once = reduce(CONNECTED, seen.Ended(Cause.STREAM_REPLACED), NOW, WAIT)
    assert (once.directive, once.condition.next_attempt) == (Directive.REPLACE, NOW + WAIT)
    again = reduce(once.condition, LOGIN, NOW + WAIT).condition
    twice = reduce(again, seen.Ended(Cause.STREAM_REPLACED), NOW + WAIT, WAIT)
    assert (twice.directive, twice.condition.state) == (Directive.RELEASE, State.FAILED)
    much_later = reduce(again, seen.Ended(Cause.STREAM_REPLACED), NOW + timedelta(hours=1), WAIT)
    assert much_later.directive is Directive.REPLACE


def test_being_replaced_once_and_written_twice_is_once() -> None:
    """The first commit may not have been heard of; whoever wrote it writes again."""
    once = reduce(CONNECTED, seen.Ended(Cause.STREAM_REPLACED), NOW, WAIT)
    repeated = reduce(once.condition, seen.Ended(Cause.STREAM_REPLACED), NOW + timedelta(seconds=1), WAIT)
    assert repeated == Transition(once.condition, Directive.REPLACE)
    started = reduce(once.condition, ProcessStarted(), NOW + WAIT).condition
    twice = reduce(started, seen.Ended(Cause.STREAM_REPLACED), NOW + WAIT, WAIT)
    assert twice.condition.state is State.FAILED


def test_a_ban_lasts_as_long_as_whatsapp_says_and_a_day_if_it_does_not() -> None:
    told = reduce(CONNECTED, seen.Ended(Cause.TEMPORARILY_BANNED, until=LATER), NOW)
    assert told.condition.next_attempt == LATER
    untold = reduce(CONNECTED, seen.Ended(Cause.TEMPORARILY_BANNED), NOW)
    assert untold.condition.next_attempt == NOW + timedelta(days=1)
    over = replace(told.condition, next_attempt=NOW)
    assert reduce(over, Activate(), NOW).condition.state is State.CONNECTING


def test_a_pairing_that_keeps_being_interrupted_is_given_up() -> None:
    worn = replace(PAIRING, attempts=PAIRING_STARTS)
    transition = reduce(worn, seen.Ended(Cause.UNREACHABLE), NOW, WAIT)
    assert (transition.outcome, transition.condition.reason) == (PairingOutcome.TIMED_OUT, "WHATSAPP_UNREACHABLE")


@pytest.mark.parametrize(("before", "cause"), list(itertools.product(EVERY, EVERY_INPUT)))
def test_what_holds_after_every_transition(before: Condition, cause: Input) -> None:
    """The same rules that Postgres enforces (migrations/0001), and that nothing is given out twice."""
    transition = reduce(before, cause, NOW, WAIT)
    after = transition.condition
    resting = after.state in {State.UNPAIRED, State.DISCONNECTED, State.LOGGED_OUT}
    if isinstance(cause, Deactivate | seen.Ended | Activate):
        assert resting == (after.desired is Desired.INACTIVE)
    if after.state is State.CONNECTED:
        assert after.credentials is Credentials.CONFIRMED
    if transition.deletes_credentials:
        assert after.credentials is Credentials.NONE
    if transition.outcome not in {None, PairingOutcome.PAIRED}:
        assert after.desired is Desired.INACTIVE
    if transition.starts_pairing:
        assert after.state is State.PAIRING
    assert reduce(before, cause, NOW, WAIT) == transition


@pytest.mark.parametrize("before", EVERY)
@pytest.mark.parametrize("wish", [Activate(), Deactivate()])
def test_wishes_are_idempotent(before: Condition, wish: Activate | Deactivate) -> None:
    once = reduce(before, wish, NOW).condition
    assert reduce(once, wish, NOW).condition == once


@pytest.mark.parametrize("waiting", [PAIRING, SCANNED, CONNECTING, RECONNECTING])
def test_a_wanted_session_waits_for_its_turn_while_it_is_due_and_has_no_process(waiting: Condition) -> None:
    assert waits_for_start(waiting, NOW, is_owned=False)
    assert not waits_for_start(waiting, NOW, is_owned=True), "its process is started"
    for is_owned in (True, False):
        assert waits_for_start(replace(waiting, next_attempt=NOW), NOW, is_owned=is_owned)
        assert not waits_for_start(replace(waiting, next_attempt=LATER), NOW, is_owned=is_owned), "it is not due"
    assert not waits_for_start(replace(waiting, desired=Desired.INACTIVE), NOW, is_owned=False)


@pytest.mark.parametrize("other", [NEW, CONNECTED, RESTING, FAILED, SUSPENDED, LOGGED_OUT])
def test_a_session_that_is_not_on_its_way_waits_for_no_turn(other: Condition) -> None:
    assert not waits_for_start(replace(other, next_attempt=None), NOW, is_owned=False)
