"""Buffers what comes from a session process, bounded because the process may be broken or hostile."""

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
    """A queue of observations. Counts the bytes of those that wait, of the current batch, and of replies to calls."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """`pause` is called for each addition above the high watermark, `resume` at the low one."""
        self._pause = pause
        self._resume = resume
        self._observations: list[Observed] = []
        self._bytes = 0
        self._reply_bytes: dict[int, int] = {}
        """Bytes of replies that no call has taken yet, by the number of the call."""
        self._nonempty = asyncio.Event()

    def add(self, observation: Observed, frame_bytes: int = 0) -> None:
        """Append an observation, or drop it if it is ephemeral and the queue is long."""
        is_loaded = len(self._observations) >= _MAX_WITH_EPHEMERAL or self._total > LOW_BYTES
        if observation.is_ephemeral and is_loaded:
            return
        self._observations.append(observation)
        self._bytes += frame_bytes + _OVERHEAD_BYTES
        self._nonempty.set()
        self._pause_if_full()

    def hold_reply(self, call_id: int, frame_bytes: int) -> None:
        """Count the reply to a call until it is taken."""
        self._reply_bytes[call_id] = frame_bytes
        self._pause_if_full()

    def take_reply(self, call_id: int) -> None:
        """Count the reply to a call no more, if there was one."""
        if self._reply_bytes.pop(call_id, 0):
            self._resume_if_low()

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
            self._resume_if_low()

    @property
    def _total(self) -> int:
        return self._bytes + sum(self._reply_bytes.values())

    def _pause_if_full(self) -> None:
        if self._total > HIGH_BYTES:
            self._pause()

    def _resume_if_low(self) -> None:
        if self._total <= LOW_BYTES:
            self._resume()
