"""Knows how many sessions are to be connected in the whole database, for a gauge. One node counts for all."""

import asyncio
import random

import structlog

from service.domain.errors import Unavailable
from service.ports import Directory

log = structlog.get_logger(__name__)

LOOK_S = 5.0
"""Seconds between two looks at what was counted last, by whichever node."""
FRESH_S = 15.0
"""Seconds after which the next node that looks counts anew: the count reads every session."""


class WantedCount:
    """The number, as of the last look."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.wanted = 0
        """Paired sessions of the whole database that are to be connected."""

    async def run(self) -> None:
        """Look for ever; at first count, since what was counted before may be of other sessions."""
        freshness = 0.0
        while True:
            try:
                self.wanted = await self._directory.wanted(freshness)
                freshness = FRESH_S
            except Unavailable as error:
                log.info("How many sessions are to be connected is not known now.", cause=error.message)
            except Exception:
                # Nothing but a gauge depends on it.
                log.exception("Sessions that are to be connected could not be counted.")
            # Not all nodes at once: who comes first counts.
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 1.5))  # noqa: S311 - not for secrets
