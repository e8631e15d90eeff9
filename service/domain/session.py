"""A session's state: what is wanted, what is, and how the one follows from what is seen.

`reduce` is pure: the same condition and input give the same transition. It is used under the session's row lock, by
the use-cases for what callers ask and by the owner for what its process reports, so no two writers can disagree.

    UNPAIRED ──Activate──▶ PAIRING ──first login──▶ CONNECTED ◀──▶ RECONNECTING
        ▲                     │                        │   │
        └──any other outcome──┘      Deactivate ◀──────┘   └──▶ LOGGED_OUT · SUSPENDED · FAILED
                                          ▼                           │
        CONNECTING ◀──Activate── DISCONNECTED         Activate ◀──────┘
"""

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import singledispatch

from service.domain import observations as seen
from service.domain.disconnect_policy import Cause, NextState, Policy, Retry, policy_for
from service.domain.pairing import PairingOutcome

REPLACED_MEMORY = timedelta(minutes=10)
"""Replaced twice within this: two owners exist somewhere, and trying again only makes them fight."""
BAN_WITHOUT_END = timedelta(days=1)
"""When a ban that names no end is looked at again."""
UNKNOWN_REFUSAL = timedelta(hours=1)
"""When a login that was refused for a reason nobody knows is tried again."""
PAIRING_STARTS = 8
"""Starts of a process without a scan, after which a pairing that keeps being interrupted is given up."""


class Desired(enum.Enum):
    """What the caller wants."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class State(enum.Enum):
    """What is. The contract's names (zap.v1.Session.State), where they are documented."""

    UNPAIRED = "UNPAIRED"
    PAIRING = "PAIRING"
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    DISCONNECTED = "DISCONNECTED"
    LOGGED_OUT = "LOGGED_OUT"
    SUSPENDED = "SUSPENDED"
    FAILED = "FAILED"


class Credentials(enum.Enum):
    """What there is to log in with."""

    #: Nothing.
    NONE = "NONE"
    #: A scan was accepted and the device saved, but WhatsApp has not let it in yet.
    UNCONFIRMED = "UNCONFIRMED"
    #: It has logged in at least once.
    CONFIRMED = "CONFIRMED"


class Directive(enum.Enum):
    """What the owner does next about the session's process."""

    #: Let it run.
    CONTINUE = "CONTINUE"
    #: End it and start another when `next_attempt` has come.
    REPLACE = "REPLACE"
    #: End it and give the session up until it is due again, or for good.
    RELEASE = "RELEASE"


@dataclass(frozen=True)
class Condition:
    """Everything that decides what happens next."""

    desired: Desired = Desired.INACTIVE
    state: State = State.UNPAIRED
    reason: str = ""
    credentials: Credentials = Credentials.NONE
    attempts: int = 0
    next_attempt: datetime | None = None
    replaced_at: datetime | None = None


@dataclass(frozen=True)
class Transition:
    """What follows from one input."""

    condition: Condition
    directive: Directive = Directive.CONTINUE
    outcome: PairingOutcome | None = None
    """Set once per pairing, by the input that ends it."""
    begins_pairing: bool = False
    """A new attempt: codes of the one before are void."""
    voids_code: bool = False
    """The code on show, if any, is of no use any more."""
    erases: bool = False
    """The device's rows must go."""


@dataclass(frozen=True)
class Activate:
    """A caller wants it connected."""


@dataclass(frozen=True)
class Deactivate:
    """A caller wants it left alone."""


@dataclass(frozen=True)
class LoggedOutByCaller:
    """A caller's Logout was carried out by WhatsApp."""


@dataclass(frozen=True)
class Restart:
    """A caller wants a new process now."""


@dataclass(frozen=True)
class ProcessStarted:
    """The owner started a process for it."""


def waits_for_turn(condition: Condition, now: datetime, *, is_owned: bool) -> bool:
    """Return whether a session is due and has no process yet: no node owns it, or its owner has no permit to start it.

    The owner plans each attempt but its first, and the start of a process removes the plan.
    """
    is_due = condition.next_attempt is None or condition.next_attempt <= now
    is_started = is_owned and condition.next_attempt is None
    is_on_its_way = condition.state in (State.PAIRING, State.CONNECTING, State.RECONNECTING)
    return condition.desired is Desired.ACTIVE and is_on_its_way and is_due and not is_started


Input = Activate | Deactivate | LoggedOutByCaller | Restart | ProcessStarted | seen.Observation


def reduce(condition: Condition, cause: Input, now: datetime, wait: timedelta = timedelta()) -> Transition:
    """The transition that `cause` makes. `wait` is how long the owner's back-off, or a ttl, would have it wait."""
    if condition.desired is Desired.INACTIVE and not isinstance(cause, Activate | Deactivate | LoggedOutByCaller):
        # What a process still says of a session that nobody wants any more changes nothing.
        return Transition(condition, Directive.RELEASE)
    return _reduce(cause, condition, now, wait)


@singledispatch
def _reduce(cause: Input, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    """Inputs that say nothing about the state: messages, receipts, codes, names."""
    return Transition(condition)


@_reduce.register
def _activate(cause: Activate, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    banned = condition.state is State.SUSPENDED and condition.next_attempt is not None and condition.next_attempt > now
    resting = condition.state in (State.UNPAIRED, State.DISCONNECTED, State.LOGGED_OUT, State.FAILED)
    if condition.desired is Desired.ACTIVE and (banned or (not resting and condition.state is not State.SUSPENDED)):
        return Transition(condition)
    paired = condition.credentials is Credentials.CONFIRMED
    return Transition(
        replace(
            condition,
            desired=Desired.ACTIVE,
            state=State.CONNECTING if paired else State.PAIRING,
            reason="",
            attempts=0,
            next_attempt=None,
            replaced_at=None,
        ),
        begins_pairing=not paired,
    )


@_reduce.register
def _deactivate(cause: Deactivate, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    if condition.desired is Desired.INACTIVE:
        return Transition(condition, Directive.RELEASE)
    if condition.state in (State.LOGGED_OUT, State.UNPAIRED):
        return Transition(replace(condition, desired=Desired.INACTIVE), Directive.RELEASE)
    if condition.credentials is Credentials.CONFIRMED:
        return Transition(_resting(condition, State.DISCONNECTED, "DEACTIVATED"), Directive.RELEASE)
    return _end_pairing(condition, PairingOutcome.CANCELLED, "PAIRING_CANCELLED")


@_reduce.register
def _logged_out_by_caller(cause: LoggedOutByCaller, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    if condition.state is State.PAIRING:
        # Another owner has seen the logout already, while whoever carried it out could not say so.
        return Transition(condition)
    gone = _resting(condition, State.LOGGED_OUT, "LOGGED_OUT_BY_CALLER")
    return Transition(replace(gone, credentials=Credentials.NONE), Directive.RELEASE, erases=True)


@_reduce.register
def _restart(cause: Restart, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    # What its process says when it has ended is not heard any more: its epoch is revoked with the wish.
    again = replace(condition, reason=policy_for(Cause.STOPPED).reason, attempts=0, next_attempt=None)
    if condition.credentials is not Credentials.CONFIRMED:
        return Transition(replace(again, state=State.PAIRING), Directive.REPLACE, voids_code=True)
    state = State.CONNECTING if condition.state is State.CONNECTING else State.RECONNECTING
    return Transition(replace(again, state=state, replaced_at=None), Directive.REPLACE)


@_reduce.register
def _process_started(cause: ProcessStarted, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    if condition.credentials is not Credentials.CONFIRMED:
        state, reason = State.PAIRING, condition.reason
    elif condition.state is State.CONNECTED:
        # It was connected until a node went away without a word.
        state, reason = State.RECONNECTING, "NODE_STOPPED"
    elif condition.state in (State.RECONNECTING, State.SUSPENDED):
        state, reason = State.RECONNECTING, condition.reason
    else:
        state, reason = State.CONNECTING, condition.reason
    attempts = condition.attempts + 1
    started = replace(condition, state=state, reason=reason, attempts=attempts, next_attempt=None)
    return Transition(started, voids_code=state is State.PAIRING)


@_reduce.register
def _device_saved(cause: seen.DeviceSaved, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    if condition.credentials is Credentials.CONFIRMED:
        return Transition(condition)
    return Transition(replace(condition, credentials=Credentials.UNCONFIRMED), voids_code=True)


@_reduce.register
def _connected(cause: seen.Connected, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    first = condition.credentials is not Credentials.CONFIRMED
    return Transition(
        replace(
            condition,
            state=State.CONNECTED,
            reason="",
            credentials=Credentials.CONFIRMED,
            attempts=0,
            next_attempt=None,
        ),
        outcome=PairingOutcome.PAIRED if first else None,
    )


@_reduce.register
def _disconnected(cause: seen.Disconnected, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    return _distrust(condition, "CONNECTION_LOST")


@_reduce.register
def _keepalive_timeout(
    cause: seen.KeepAliveTimeout, condition: Condition, now: datetime, wait: timedelta
) -> Transition:
    return _distrust(condition, "KEEPALIVE_TIMEOUT")


@_reduce.register
def _keepalive_restored(
    cause: seen.KeepAliveRestored, condition: Condition, now: datetime, wait: timedelta
) -> Transition:
    if condition.state is State.RECONNECTING and condition.reason == "KEEPALIVE_TIMEOUT":
        return Transition(replace(condition, state=State.CONNECTED, reason=""))
    return Transition(condition)


@_reduce.register
def _ended(cause: seen.Ended, condition: Condition, now: datetime, wait: timedelta) -> Transition:
    policy = policy_for(cause.cause)
    if condition.credentials is Credentials.CONFIRMED:
        return _ended_paired(cause, policy, condition, now, wait)
    return _ended_pairing(cause, policy, condition, now, wait)


def _ended_paired(
    cause: seen.Ended, policy: Policy, condition: Condition, now: datetime, wait: timedelta
) -> Transition:
    if policy.fate is NextState.LOGGED_OUT:
        gone = _resting(condition, State.LOGGED_OUT, policy.reason)
        return Transition(replace(gone, credentials=Credentials.NONE), Directive.RELEASE, erases=True)
    if policy.retry is Retry.UNTIL:
        until = cause.until or now + BAN_WITHOUT_END
        held = replace(condition, state=State.SUSPENDED, reason=policy.reason, next_attempt=until)
        return Transition(held, Directive.RELEASE)
    if policy.retry is Retry.ONCE and condition.replaced_at and now - condition.replaced_at < REPLACED_MEMORY:
        if condition.next_attempt is not None and condition.reason == policy.reason:
            # No process was started since: the same end, written again by whoever did not hear of the first commit.
            return Transition(condition, Directive.REPLACE)
        return _fail(condition, policy.reason)
    if policy.retry is Retry.NEVER:
        return _fail(condition, policy.reason)
    # A process that never reached CONNECTED is still on its way to its first connection.
    state = State.CONNECTING if condition.state is State.CONNECTING else State.RECONNECTING
    is_slow = policy.retry is Retry.HOURLY
    again = replace(
        condition,
        state=state,
        reason=policy.reason,
        next_attempt=now + (UNKNOWN_REFUSAL if is_slow else wait),
        replaced_at=now if cause.cause is Cause.STREAM_REPLACED else condition.replaced_at,
    )
    # For so long nobody needs to own it: whoever is there when it is due claims it.
    return Transition(again, Directive.RELEASE if is_slow else Directive.REPLACE)


def _ended_pairing(
    cause: seen.Ended, policy: Policy, condition: Condition, now: datetime, wait: timedelta
) -> Transition:
    if policy.pairing is not None:
        return _end_pairing(condition, policy.pairing, policy.reason)
    if condition.attempts >= PAIRING_STARTS:
        return _end_pairing(condition, PairingOutcome.TIMED_OUT, policy.reason)
    again = replace(condition, state=State.PAIRING, reason=policy.reason, next_attempt=now + wait)
    return Transition(again, Directive.REPLACE, voids_code=True)


def _end_pairing(condition: Condition, outcome: PairingOutcome, reason: str) -> Transition:
    rest = replace(_resting(condition, State.UNPAIRED, reason), credentials=Credentials.NONE)
    return Transition(rest, Directive.RELEASE, outcome=outcome, erases=True)


def _resting(condition: Condition, state: State, reason: str) -> Condition:
    """Not wanted any more, and nothing planned."""
    return replace(condition, desired=Desired.INACTIVE, state=state, reason=reason, attempts=0, next_attempt=None)


def _fail(condition: Condition, reason: str) -> Transition:
    failed = replace(condition, state=State.FAILED, reason=reason, next_attempt=None)
    return Transition(failed, Directive.RELEASE)


def _distrust(condition: Condition, reason: str) -> Transition:
    if condition.state is State.CONNECTED:
        return Transition(replace(condition, state=State.RECONNECTING, reason=reason))
    return Transition(condition)
