"""What a session process has said and nobody has dealt with yet: bounded, since a process may be broken or hostile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from service.domain.observations import Observed

HIGH_BYTES, LOW_BYTES = 4 * 1024 * 1024, 1024 * 1024
"""Of one process: above the first nothing more is read from it, until no more than the second are left."""
_MOST_MOMENTARY = 500
"""Observations that wait, beyond which one is dropped that is of the moment."""
_OBJECTS_BYTES = 512
"""What an observation takes beside its frame's own bytes, about."""


class Waiting:
    """Observations in their order, and their bytes: of those that wait, and of the batch that is in hand."""

    def __init__(self, hold: Callable[[], None], go_on: Callable[[], None]) -> None:
        """`hold` is called when there is too much, as often as there is more; `go_on` when there is little again."""
        self._hold = hold
        self._go_on = go_on
        self._observations: list[Observed] = []
        self._bytes = 0
        self._something = asyncio.Event()

    def add(self, observation: Observed, frame_bytes: int = 0) -> None:
        """Have it wait, or drop one that is of the moment if there is much already."""
        is_much = len(self._observations) >= _MOST_MOMENTARY or self._bytes > LOW_BYTES
        if observation.is_momentary and is_much:
            return
        self._observations.append(observation)
        self._bytes += frame_bytes + _OBJECTS_BYTES
        self._something.set()
        if self._bytes > HIGH_BYTES:
            self._hold()

    async def batches(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield all that waits at a time, for ever. A batch is dealt with when the next one is asked for."""
        while True:
            while not self._observations:
                self._something.clear()
                await self._something.wait()
            batch, self._observations = self._observations, []
            in_hand = self._bytes
            yield batch
            self._bytes -= in_hand
            if self._bytes <= LOW_BYTES:
                self._go_on()
