"""Shows how many sessions the whole database has, by state and reason. One node counts for all nodes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog

from service.domain.disconnect_policy import POLICIES, NextState, Retry
from service.domain.errors import Unavailable
from service.domain.maintenance import SessionCounts
from service.domain.reasons import REASONS
from service.domain.session import State

log = structlog.get_logger(__name__)

READ_INTERVAL_S = 5.0
"""Most seconds between two reads of the shared counts."""
RECOUNT_AGE_S = 10.0
"""Seconds after which the next node that reads the counts counts again. Counting reads every session."""
STALE_AGE_S = 60.0
"""Seconds after which the counts that are shown are reported as old; they are 15 s old at most if counting succeeds."""
OTHER = "OTHER"
"""Stands for a state or reason that this release does not know, so that the values of a label are bounded."""

_STATES = {state.value for state in State}
#: States that need an operator. Each is shown as 0 from the start so that an alert sees the first session rise from it.
_NEEDS_OPERATOR = {
    (State.FAILED.value if policy.retry is Retry.ONCE else policy.next_state.value, policy.reason)
    for policy in POLICIES.values()
    if policy.next_state is not NextState.RECONNECTING or policy.retry is Retry.ONCE
}

ReadCounts = Callable[[float], Awaitable[SessionCounts | None]]
"""Return the shared counts, made anew if they are older than so many seconds; None: the first count is under way."""
ShowCounts = Callable[[Mapping[tuple[str, str], int], int, float], None]
"""Show sessions by state and reason, those that are to be connected, and the age of the counts."""


class Census:
    """Reads the shared counts at intervals and shows them."""

    def __init__(self, read: ReadCounts, show: ShowCounts) -> None:
        """`read` raises Unavailable when the database is away; the last counts then stay shown."""
        self._read = read
        self._show = show
        self._seen = set(_NEEDS_OPERATOR)
        self._counted_at = time.monotonic()
        self._is_stale = False

    async def run(self) -> None:
        """Read until cancelled. The first read counts again, since nodes that stopped may have left old counts."""
        max_age_s = 0.0
        while True:
            try:
                # Other parts log an unavailable database.
                with suppress(Unavailable):
                    await self.take(max_age_s)
                    max_age_s = RECOUNT_AGE_S
            except Exception:
                # Only gauges depend on the counts, so the loop continues.
                log.exception("Counting sessions failed; retrying.")
            self._report_stale_counts()
            # Spread over time, so that one node counts before the others read.
            await asyncio.sleep(READ_INTERVAL_S * random.uniform(0.5, 1.0))  # noqa: S311 - not for secrets

    async def take(self, max_age_s: float) -> None:
        """Read the counts once and show them. Raises Unavailable."""
        if (found := await self._read(max_age_s)) is None:
            return
        counts = Counter(dict.fromkeys(self._seen, 0))
        for (state, reason), sessions in found.by_state.items():
            known = state if state in _STATES else OTHER, reason if not reason or reason in REASONS else OTHER
            counts[known] += sessions
        self._seen |= counts.keys()
        self._counted_at = time.monotonic() - found.age_s
        self._show(counts, found.wanted, found.age_s)

    def _report_stale_counts(self) -> None:
        age_s = time.monotonic() - self._counted_at
        if age_s > STALE_AGE_S and not self._is_stale:
            log.warning("The counts of sessions in the metrics are old: counting does not succeed.", age_s=round(age_s))
        self._is_stale = age_s > STALE_AGE_S
