"""Hold a session's state machine: desired state, actual state, and the transition that each input makes.

`reduce` is pure: the same condition and input give the same transition. It runs under the session's row lock, for the
requests of callers and for the reports of the owner's process, so that two writers cannot disagree.

    UNPAIRED ──Activate──▶ PAIRING ──first login──▶ CONNECTED ◀──▶ RECONNECTING
        ▲                     │                        │   │
        └──any other outcome──┘      Deactivate ◀──────┘   └──▶ LOGGED_OUT · SUSPENDED · FAILED
                                          ▼                           │
        CONNECTING ◀──Activate── DISCONNECTED         Activate ◀──────┘
"""

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.domain import observations as seen
from service.domain.disconnect_policy import POLICIES, Cause, NextState, Retry
from service.domain.pairing import PairingOutcome

REPLACED_WINDOW = timedelta(minutes=10)
"""A second replacement within this time ends the retries: each retry would replace the other client."""
DEFAULT_BAN = timedelta(days=1)
"""Wait before the retry after a ban that names no end."""
UNKNOWN_REFUSAL_WAIT = timedelta(hours=1)
"""Wait before the retry after a login that was refused with an unknown code."""
PAIRING_STARTS = 8
"""Process starts without a scan after which an interrupted pairing ends."""


class Desired(enum.Enum):
    """Names the desired states."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class State(enum.Enum):
    """Names the actual states; zap.v1.Session.State documents them."""

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
    """Says what a session can log in with."""

    #: Nothing.
    NONE = "NONE"
    #: A scan was accepted and the device saved, but it has not logged in yet.
    UNCONFIRMED = "UNCONFIRMED"
    #: The device has logged in at least once.
    CONFIRMED = "CONFIRMED"


class Directive(enum.Enum):
    """Says what the owner does next with the session's process."""

    #: Let the process run.
    CONTINUE = "CONTINUE"
    #: End the process; start another one at `next_attempt`.
    REPLACE = "REPLACE"
    #: End the process and release the lease.
    RELEASE = "RELEASE"


@dataclass(frozen=True)
class Condition:
    """Holds everything that a transition depends on."""

    desired: Desired = Desired.INACTIVE
    state: State = State.UNPAIRED
    reason: str = ""
    credentials: Credentials = Credentials.NONE
    attempts: int = 0
    next_attempt: datetime | None = None
    replaced_at: datetime | None = None


@dataclass(frozen=True)
class Transition:
    """Holds the effects of one input."""

    condition: Condition
    directive: Directive = Directive.CONTINUE
    outcome: PairingOutcome | None = None
    """Set once per pairing, by the input that ends it."""
    starts_pairing: bool = False
    """A new pairing begins; codes of the previous one are void."""
    invalidates_code: bool = False
    """The current code, if any, is void."""
    deletes_credentials: bool = False
    """The device's rows must be deleted."""


@dataclass(frozen=True)
class Activate:
    """A caller set the desired state to active."""


@dataclass(frozen=True)
class Deactivate:
    """A caller set the desired state to inactive."""


@dataclass(frozen=True)
class LoggedOutByCaller:
    """WhatsApp carried out a caller's Logout."""


@dataclass(frozen=True)
class Restart:
    """A caller requested a new process now."""


@dataclass(frozen=True)
class ProcessStarted:
    """The owner started a process for the session."""


def waits_for_start(condition: Condition, now: datetime, *, is_owned: bool) -> bool:
    """Return whether a session is due and has no process yet: no node owns it, or its owner has no permit to start it.

    The owner sets `next_attempt` for each start except its first, and the start of a process clears it.
    """
    is_due = condition.next_attempt is None or condition.next_attempt <= now
    is_started = is_owned and condition.next_attempt is None
    is_on_its_way = condition.state in (State.PAIRING, State.CONNECTING, State.RECONNECTING)
    return condition.desired is Desired.ACTIVE and is_on_its_way and is_due and not is_started


Input = Activate | Deactivate | LoggedOutByCaller | Restart | ProcessStarted | seen.Observation


def reduce(  # noqa: C901, PLR0911, PLR0912 - a table with one row for each input
    condition: Condition, cause: Input, now: datetime, wait: timedelta = timedelta()
) -> Transition:
    """Return the transition that `cause` makes. `wait`: time until the next attempt, if the transition plans one."""
    if condition.desired is Desired.INACTIVE and not isinstance(cause, Activate | Deactivate | LoggedOutByCaller):
        # Late reports of a process do not change an inactive session.
        return Transition(condition, Directive.RELEASE)
    match cause:
        case Activate():
            return _activate(condition, now)
        case Deactivate():
            return _deactivate(condition)
        case LoggedOutByCaller():
            return _logged_out_by_caller(condition)
        case Restart():
            return _restart(condition)
        case ProcessStarted():
            return _process_started(condition)
        case seen.DeviceSaved():
            return _device_saved(condition)
        case seen.Connected():
            return _connected(condition)
        case seen.Disconnected():
            return _to_reconnecting(condition, "CONNECTION_LOST")
        case seen.KeepAliveTimeout():
            return _to_reconnecting(condition, "KEEPALIVE_TIMEOUT")
        case seen.KeepAliveRestored():
            return _keepalive_restored(condition)
        case seen.Ended() if condition.credentials is Credentials.CONFIRMED:
            return _ended_paired(condition, cause, now, wait)
        case seen.Ended():
            return _ended_pairing(condition, cause, now, wait)
        case seen.CodeShown() | seen.PushNameChanged() | seen.InboundEvent():
            return Transition(condition)


def _activate(condition: Condition, now: datetime) -> Transition:
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
        starts_pairing=not paired,
    )


def _deactivate(condition: Condition) -> Transition:
    if condition.desired is Desired.INACTIVE:
        return Transition(condition, Directive.RELEASE)
    if condition.state in (State.LOGGED_OUT, State.UNPAIRED):
        return Transition(replace(condition, desired=Desired.INACTIVE), Directive.RELEASE)
    if condition.credentials is Credentials.CONFIRMED:
        return Transition(_deactivated(condition, State.DISCONNECTED, "DEACTIVATED"), Directive.RELEASE)
    return _erase(condition, State.UNPAIRED, "PAIRING_CANCELLED", PairingOutcome.CANCELLED)


def _logged_out_by_caller(condition: Condition) -> Transition:
    if condition.state is State.PAIRING:
        # The session pairs again already: another owner recorded the logout before.
        return Transition(condition)
    return _erase(condition, State.LOGGED_OUT, "LOGGED_OUT_BY_CALLER")


def _restart(condition: Condition) -> Transition:
    # A restart revokes the epoch, so the old process's `Ended` is not recorded. The policy applies here instead.
    again = replace(condition, reason=POLICIES[Cause.STOPPED].reason, attempts=0, next_attempt=None)
    if condition.credentials is not Credentials.CONFIRMED:
        return Transition(replace(again, state=State.PAIRING), Directive.REPLACE, invalidates_code=True)
    state = State.CONNECTING if condition.state is State.CONNECTING else State.RECONNECTING
    return Transition(replace(again, state=state, replaced_at=None), Directive.REPLACE)


def _process_started(condition: Condition) -> Transition:
    if condition.credentials is not Credentials.CONFIRMED:
        state, reason = State.PAIRING, condition.reason
    elif condition.state is State.CONNECTED:
        # The node that ran it ended without a report.
        state, reason = State.RECONNECTING, "NODE_STOPPED"
    elif condition.state in (State.RECONNECTING, State.SUSPENDED):
        state, reason = State.RECONNECTING, condition.reason
    else:
        state, reason = State.CONNECTING, condition.reason
    attempts = condition.attempts + 1
    started = replace(condition, state=state, reason=reason, attempts=attempts, next_attempt=None)
    return Transition(started, invalidates_code=state is State.PAIRING)


def _device_saved(condition: Condition) -> Transition:
    if condition.credentials is Credentials.CONFIRMED:
        return Transition(condition)
    return Transition(replace(condition, credentials=Credentials.UNCONFIRMED), invalidates_code=True)


def _connected(condition: Condition) -> Transition:
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


def _keepalive_restored(condition: Condition) -> Transition:
    if condition.state is State.RECONNECTING and condition.reason == "KEEPALIVE_TIMEOUT":
        return Transition(replace(condition, state=State.CONNECTED, reason=""))
    return Transition(condition)


def _ended_paired(condition: Condition, cause: seen.Ended, now: datetime, wait: timedelta) -> Transition:
    policy = POLICIES[cause.cause]
    if policy.next_state is NextState.LOGGED_OUT:
        return _erase(condition, State.LOGGED_OUT, policy.reason)
    if policy.retry is Retry.UNTIL:
        until = cause.until or now + DEFAULT_BAN
        held = replace(condition, state=State.SUSPENDED, reason=policy.reason, next_attempt=until)
        return Transition(held, Directive.RELEASE)
    if policy.retry is Retry.ONCE and condition.replaced_at and now - condition.replaced_at < REPLACED_WINDOW:
        if condition.next_attempt is not None and condition.reason == policy.reason:
            # No process was started since: this is the same end, repeated after a commit that was not confirmed.
            return Transition(condition, Directive.REPLACE)
        return _fail(condition, policy.reason)
    if policy.retry is Retry.NEVER:
        return _fail(condition, policy.reason)
    # CONNECTING stays until the first connection.
    state = State.CONNECTING if condition.state is State.CONNECTING else State.RECONNECTING
    is_slow = policy.retry is Retry.HOURLY
    again = replace(
        condition,
        state=state,
        reason=policy.reason,
        next_attempt=now + (UNKNOWN_REFUSAL_WAIT if is_slow else wait),
        replaced_at=now if cause.cause is Cause.STREAM_REPLACED else condition.replaced_at,
    )
    # The wait is long, so release the lease; any node claims the session when it is due.
    return Transition(again, Directive.RELEASE if is_slow else Directive.REPLACE)


def _ended_pairing(condition: Condition, cause: seen.Ended, now: datetime, wait: timedelta) -> Transition:
    policy = POLICIES[cause.cause]
    if policy.pairing is not None:
        return _erase(condition, State.UNPAIRED, policy.reason, policy.pairing)
    if condition.attempts >= PAIRING_STARTS:
        return _erase(condition, State.UNPAIRED, policy.reason, PairingOutcome.TIMED_OUT)
    again = replace(condition, state=State.PAIRING, reason=policy.reason, next_attempt=now + wait)
    return Transition(again, Directive.REPLACE, invalidates_code=True)


def _erase(condition: Condition, state: State, reason: str, outcome: PairingOutcome | None = None) -> Transition:
    """Deactivate the session and discard its credentials."""
    erased = replace(_deactivated(condition, state, reason), credentials=Credentials.NONE)
    return Transition(erased, Directive.RELEASE, outcome=outcome, deletes_credentials=True)


def _deactivated(condition: Condition, state: State, reason: str) -> Condition:
    """Return the condition as inactive, with no attempt planned."""
    return replace(condition, desired=Desired.INACTIVE, state=state, reason=reason, attempts=0, next_attempt=None)


def _fail(condition: Condition, reason: str) -> Transition:
    failed = replace(condition, state=State.FAILED, reason=reason, next_attempt=None)
    return Transition(failed, Directive.RELEASE)


def _to_reconnecting(condition: Condition, reason: str) -> Transition:
    if condition.state is State.CONNECTED:
        return Transition(replace(condition, state=State.RECONNECTING, reason=reason))
    return Transition(condition)
