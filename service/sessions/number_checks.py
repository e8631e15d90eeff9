"""Checks phone numbers for the sessions of this node: asks WhatsApp only for what is not known, and not too often."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.domain.errors import ResourceExhausted
from service.domain.number_checks import KEPT_S, NumberAnswer, NumberAnswers, NumberBudget

Ask = Callable[[Sequence[str]], Awaitable[Mapping[str, NumberAnswer]]]
"""Asks WhatsApp for numbers (digits only). The answers may lack some."""


@dataclass
class _SessionChecks:
    budget: NumberBudget
    answers: NumberAnswers = field(default_factory=NumberAnswers)
    used: float = 0.0


class NumberChecker:
    """Has answers and a budget for each session. After a hand-over the new owner begins with empty ones."""

    def __init__(self, per_hour: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_hour`: numbers that each session may ask for."""
        self._per_hour = per_hour
        self._clock = clock
        self._sessions: dict[str, _SessionChecks] = {}

    async def check(self, session_id: str, numbers: Sequence[str], ask: Ask) -> Mapping[str, NumberAnswer]:
        """Return answers by number. `numbers`: digits only. Numbers that WhatsApp left out are missing.

        Raises ResourceExhausted (NUMBER_CHECKS_EXHAUSTED), and then has not asked; and what `ask` raises.
        """
        checks = self._checks_of(session_id)
        answers = checks.answers.known(numbers, self._clock())
        unknown = [number for number in dict.fromkeys(numbers) if number not in answers]
        if unknown:
            if wait := checks.budget.spend(len(unknown), self._clock()):
                raise self._exhausted(session_id, len(unknown), wait)
            asked = await ask(unknown)
            checks.answers.keep(asked, self._clock())
            answers |= asked
        return answers

    def _checks_of(self, session_id: str) -> _SessionChecks:
        now = self._clock()
        checks = self._sessions.get(session_id)
        if checks is None:
            # What was not used for an hour holds no answer any more, and its budget is full again.
            self._sessions = {name: each for name, each in self._sessions.items() if now - each.used < KEPT_S}
            checks = self._sessions[session_id] = _SessionChecks(NumberBudget(self._per_hour, now))
        checks.used = now
        return checks

    def _exhausted(self, session_id: str, count: int, wait: float) -> ResourceExhausted:
        return ResourceExhausted(
            f"session {session_id!r} may check {self._per_hour} numbers per hour; {count} more can be checked in"
            f" {wait:.0f} s",
            reason="NUMBER_CHECKS_EXHAUSTED",
            metadata={
                "session_id": session_id,
                "per_hour": str(self._per_hour),
                "numbers": str(count),
                "seconds": f"{wait:.0f}",
            },
            retry_after=wait,
        )
