"""Reads how many sessions of the whole database are to be connected, for a gauge. One node counts for all nodes."""

import asyncio
import random

import structlog

from service.domain.errors import Unavailable
from service.ports import Directory

log = structlog.get_logger(__name__)

LOOK_S = 5.0
"""Seconds between two reads of the shared count."""
FRESH_S = 15.0
"""Seconds after which the next node that reads it counts again; counting reads every session."""


class WantedCount:
    """Holds the count as of the last read."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.wanted = 0
        """The number of paired sessions of the whole database that are to be connected."""

    async def run(self) -> None:
        """Read the count forever. The first read counts again, since the stored count may be outdated."""
        freshness = 0.0
        while True:
            try:
                self.wanted = await self._directory.wanted(freshness)
                freshness = FRESH_S
            except Unavailable as error:
                log.info("Cannot read how many sessions are to be connected.", cause=error.message)
            except Exception:
                # Only a gauge depends on the count.
                log.exception("Sessions that are to be connected could not be counted.")
            # Spread over time, so that one node counts before the others read.
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 1.5))  # noqa: S311 - not for secrets
