"""Both of it, as one task of a node."""

import asyncio
from dataclasses import dataclass

from service.upkeep.lookout import Lookout
from service.upkeep.retention import Retention


@dataclass(frozen=True)
class Upkeep:
    """What goes on until it is cancelled. Sessions do not depend on it."""

    retention: Retention
    lookout: Lookout

    async def run(self) -> None:
        """For ever."""
        await asyncio.gather(self.retention.run(), self.lookout.run())
