"""Counts the sessions of the whole database by state and reason."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog

from service.domain.disconnect_policy import POLICIES, NextState, Retry
from service.domain.errors import Unavailable
from service.domain.reasons import REASONS
from service.domain.session import State

log = structlog.get_logger(__name__)

COUNT_INTERVAL_S = 15.0
"""Seconds between two counts."""
OTHER = "OTHER"
"""Stands for a state or reason that this release does not know, so that the values of a label are bounded."""

Counts = Mapping[tuple[str, str], int]
"""Sessions by state and reason; the reason is empty if none is given."""

_STATES = {state.value for state in State}
#: States that need an operator. Each is shown as 0 from the start so that an alert sees the first session rise from it.
_NEEDS_OPERATOR = {
    (State.FAILED.value if policy.retry is Retry.ONCE else policy.next_state.value, policy.reason)
    for policy in POLICIES.values()
    if policy.next_state is not NextState.RECONNECTING or policy.retry is Retry.ONCE
}


class Census:
    """Counts sessions at intervals and shows the counts."""

    def __init__(self, count: Callable[[], Awaitable[Counts]], show: Callable[[Counts], None]) -> None:
        """`count` raises Unavailable when the database is away; the last counts then stay shown."""
        self._count = count
        self._show = show
        self._seen = set(_NEEDS_OPERATOR)

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            try:
                # Other parts log an unavailable database.
                with suppress(Unavailable):
                    await self.take()
            except Exception:
                # No session depends on the census, so the loop continues.
                log.exception("Counting sessions failed; retrying.")
            await asyncio.sleep(COUNT_INTERVAL_S)

    async def take(self) -> None:
        """Count once and show the counts. Raises Unavailable."""
        counts = Counter(dict.fromkeys(self._seen, 0))
        for (state, reason), sessions in (await self._count()).items():
            known = state if state in _STATES else OTHER, reason if not reason or reason in REASONS else OTHER
            counts[known] += sessions
        self._seen |= counts.keys()
        self._show(counts)
