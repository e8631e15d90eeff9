"""Limits what is in use at the same time: the bytes of uploads, the number of downloads."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import ResourceExhausted


class Budget:
    """Lends a limited amount."""

    def __init__(self, amount: int, reason: str, sentence: str) -> None:
        """Take the `reason` and the `sentence` of the error; the sentence has {amount} for the amount."""
        self._amount = amount
        self._reason = reason
        self._sentence = sentence
        self.used = 0

    @contextmanager
    def lend(self, amount: int) -> Iterator[None]:
        """Lend an amount while the context lasts. Raise ResourceExhausted if too much is in use."""
        if self.used + amount > self._amount:
            raise ResourceExhausted(
                self._sentence.format(amount=self._amount),
                reason=self._reason,
                metadata={"limit": str(self._amount), "used": str(self.used)},
                # Spread the retries of a burst.
                retry_after=random.uniform(1.0, 5.0),  # noqa: S311 - no secret
            )
        self.used += amount
        try:
            yield
        finally:
            self.used -= amount
