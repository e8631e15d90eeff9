"""Buffers the observations of a session process, bounded because the process may be broken or hostile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from service.domain.observations import Observed

HIGH_BYTES, LOW_BYTES = 4 * 1024 * 1024, 1024 * 1024
"""High and low watermark of one process: reading pauses above the first and resumes at the second."""
_MAX_WITH_EPHEMERAL = 500
"""Observations that wait, from which on ephemeral ones are dropped."""
_OVERHEAD_BYTES = 512
"""Approximate bytes of an observation in addition to its frame."""


class Waiting:
    """A queue of observations that counts the bytes of those that wait and of the current batch."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """`pause` is called for each observation above the high watermark, `resume` at the low one."""
        self._pause = pause
        self._resume = resume
        self._observations: list[Observed] = []
        self._bytes = 0
        self._nonempty = asyncio.Event()

    def add(self, observation: Observed, frame_bytes: int = 0) -> None:
        """Append an observation, or drop it if it is ephemeral and the queue is long."""
        is_loaded = len(self._observations) >= _MAX_WITH_EPHEMERAL or self._bytes > LOW_BYTES
        if observation.is_ephemeral and is_loaded:
            return
        self._observations.append(observation)
        self._bytes += frame_bytes + _OVERHEAD_BYTES
        self._nonempty.set()
        if self._bytes > HIGH_BYTES:
            self._pause()

    async def batches(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield all that waits, again and again. A batch counts as processed when the next one is requested."""
        while True:
            while not self._observations:
                self._nonempty.clear()
                await self._nonempty.wait()
            batch, self._observations = self._observations, []
            batch_bytes = self._bytes
            yield batch
            self._bytes -= batch_bytes
            if self._bytes <= LOW_BYTES:
                self._resume()
