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

PERIOD = 15.0
"""Seconds between two counts."""
OTHER = "OTHER"
"""A state or a reason of a later release: the values of a label are bounded, whatever the database holds."""

Counts = Mapping[tuple[str, str], int]
"""How many sessions are in a state for a reason (empty: none is given)."""

_STATES = {state.value for state in State}
#: What needs a human. It is shown from the start, as 0: an alert must see the first session that gets there.
_LASTING = {
    (State.FAILED.value if policy.retry is Retry.ONCE else policy.fate.value, policy.reason)
    for policy in POLICIES.values()
    if policy.fate is not NextState.RECONNECTING or policy.retry is Retry.ONCE
}


class Census:
    """The job."""

    def __init__(self, count: Callable[[], Awaitable[Counts]], show: Callable[[Counts], None]) -> None:
        """`count` raises Unavailable when the database is away; what was shown last stays then."""
        self._count = count
        self._show = show
        self._seen = set(_LASTING)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                # That the database is away others say.
                with suppress(Unavailable):
                    await self.take()
            except Exception:
                # No session depends on it.
                log.exception("The sessions could not be counted.")
            await asyncio.sleep(PERIOD)

    async def take(self) -> None:
        """Once. Raises Unavailable."""
        counts = Counter(dict.fromkeys(self._seen, 0))
        for (state, reason), sessions in (await self._count()).items():
            known = state if state in _STATES else OTHER, reason if not reason or reason in REASONS else OTHER
            counts[known] += sessions
        self._seen |= counts.keys()
        self._show(counts)
