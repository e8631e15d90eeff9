"""Holds the faults that a test has set. The server consults them wherever a fault can occur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.gates import Gates
from simulator.listeners import Refusal
from simulator.signal_state import Damage

#: Name of clients that are not linked yet.
UNPAIRED = frozenset({"unpaired"})


@dataclass(frozen=True)
class Target:
    """Selects devices: all, those of a phone number, one (by PN or LID address), or clients not linked yet."""

    text: str = ""

    def covers(self, addresses: frozenset[str]) -> bool:
        """Return whether a device with these names (phone number, addresses) is selected."""
        return not self.text or self.text in addresses


@dataclass
class Countdown:
    """A fault for selected devices, a number of times or until cleared."""

    target: Target
    #: None means until cleared
    remaining: int | None = 1

    def strikes(self, addresses: frozenset[str]) -> bool:
        """Return whether the fault occurs now, and count it."""
        if self.remaining == 0 or not self.target.covers(addresses):
            return False
        if self.remaining is not None:
            self.remaining -= 1
        return True


@dataclass
class LoginFailure(Countdown):
    """A login that is answered with <failure>."""

    reason: int = 503
    code: int | None = None
    expire: int | None = None


@dataclass
class DropBeforeAck(Countdown):
    """A message whose connection is cut before its acknowledgement."""

    #: whether the server has accepted the message, so that its repetition is a duplicate
    is_taken: bool = True


@dataclass
class MessageRefusal(Countdown):
    """A message that is rejected and acknowledged with an error."""

    code: int = 500


@dataclass
class DropAtConfirmation(Countdown):
    """The receipt of a message, or the ack of a receipt, at which the connection is cut instead."""


@dataclass
class UnreadableMessage(Countdown):
    """A message that a phone cannot read, because keys are lost or damaged as the message arrives."""

    sender: Target = field(default_factory=Target)
    damage: Damage = Damage.LOST


@dataclass
class QueryFailure(Countdown):
    """Queries of a namespace, or of a namespace and a first child (w:g2/create), that are answered with an error."""

    namespace: str = ""
    code: int = 500
    text: str = ""


@dataclass
class HeldQuery(Countdown):
    """Queries of a namespace, or of a namespace and a first child, that get no answer until released."""

    namespace: str = ""
    held: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class ConnectionRefusal(Countdown):
    """New connections that are refused before the WebSocket upgrade."""

    how: Refusal = Refusal.ABORT


_NO_ADDRESSES: frozenset[str] = frozenset()


class Faults:
    """All faults of a simulator."""

    def __init__(self) -> None:
        self.gates = Gates()
        self.latency = 0.0
        self.login_failures: list[LoginFailure] = []
        self.drops_before_ack: list[DropBeforeAck] = []
        self.message_refusals: list[MessageRefusal] = []
        self.query_failures: list[QueryFailure] = []
        self.drops_at_confirmation: list[DropAtConfirmation] = []
        self.unreadable_messages: list[UnreadableMessage] = []
        self.held_queries: list[HeldQuery] = []
        self.muted_keepalives: list[Target] = []
        self.refusals: list[ConnectionRefusal] = []

    def login_failure(self, addresses: frozenset[str]) -> LoginFailure | None:
        """Return how this device's login fails, if it does."""
        return next((failure for failure in self.login_failures if failure.strikes(addresses)), None)

    def drop_before_ack(self, addresses: frozenset[str]) -> DropBeforeAck | None:
        """Return the fault that cuts the connection before this message is acknowledged, if any."""
        return next((drop for drop in self.drops_before_ack if drop.strikes(addresses)), None)

    def message_refusal(self, addresses: frozenset[str]) -> MessageRefusal | None:
        """Return how this message is refused, if it is."""
        return next((refusal for refusal in self.message_refusals if refusal.strikes(addresses)), None)

    def query_failure(self, addresses: frozenset[str], asked: str) -> QueryFailure | None:
        """Return how this query fails, if it does."""
        meant = (failure for failure in self.query_failures if _is_within(asked, failure.namespace))
        return next((failure for failure in meant if failure.strikes(addresses)), None)

    def drop_at_confirmation(self, addresses: frozenset[str]) -> bool:
        """Return whether the connection is cut instead of accepting this confirmation."""
        return any(drop.strikes(addresses) for drop in self.drops_at_confirmation)

    def damage(self, phone: str, sender: frozenset[str]) -> Damage | None:
        """Return the damage to a phone's keys at a message of the device with these names, if any."""
        struck = (fault for fault in self.unreadable_messages if fault.sender.covers(sender))
        return next((fault.damage for fault in struck if fault.strikes(frozenset({phone}))), None)

    def hold_query(self, addresses: frozenset[str], asked: str, answer: Callable[[], None]) -> bool:
        """Return whether this query is left unanswered. If so, `answer` is called when it is released."""
        for query in self.held_queries:
            if _is_within(asked, query.namespace) and query.strikes(addresses):
                query.held.append(answer)
                return True
        return False

    @property
    def held_query_count(self) -> int:
        """Number of queries that wait to be released."""
        return sum(len(query.held) for query in self.held_queries)

    def release_queries(self) -> int:
        """Answer all held queries and return their number."""
        answers = [answer for query in self.held_queries for answer in query.held]
        self.held_queries.clear()
        for answer in answers:
            answer()
        return len(answers)

    def mute_keepalives(self, target: Target, *, is_muted: bool) -> None:
        """Set whether the keepalives of these devices stay unanswered."""
        self.muted_keepalives = [muted for muted in self.muted_keepalives if muted != target]
        if is_muted:
            self.muted_keepalives.append(target)

    def is_keepalive_muted(self, addresses: frozenset[str]) -> bool:
        """Return whether this device's keepalives stay unanswered."""
        return any(target.covers(addresses) for target in self.muted_keepalives)

    def next_refusal(self) -> Refusal | None:
        """Return how the next connection is refused, if it is."""
        return next((refusal.how for refusal in self.refusals if refusal.strikes(_NO_ADDRESSES)), None)

    def clear(self) -> None:
        """Clear all faults and release what is held."""
        self.release_queries()
        for step in list(self.gates.waiting):
            self.gates.release(step)
        self.latency = 0.0
        for plan in (
            self.login_failures,
            self.drops_before_ack,
            self.message_refusals,
            self.query_failures,
            self.drops_at_confirmation,
            self.unreadable_messages,
            self.muted_keepalives,
            self.refusals,
        ):
            plan.clear()


def _is_within(asked: str, namespace: str) -> bool:
    """Return whether a query, given by namespace and first child, is one of those that a fault names."""
    return not namespace or f"{asked}/".startswith(f"{namespace}/")
