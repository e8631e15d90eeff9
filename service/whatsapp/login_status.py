"""The end of a pairing, from the one word that the library has for it."""

import time
from collections.abc import Callable

from service.domain import pairing
from service.domain.disconnects import Cause

_LATE = 1.0
"""Seconds by which the last code's end may seem to come early."""

_CAUSES = {
    "error": Cause.SCAN_REJECTED,
    "err-client-outdated": Cause.CLIENT_OUTDATED,
    "err-unexpected-state": Cause.PAIRING_REFUSED,
    "err-scanned-without-multidevice": Cause.SCAN_REJECTED,
}


class CodesShown:
    """The codes of this process: how many, and since when the last one has been on show."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._since = 0.0

    def show(self) -> int:
        """One more; its position, from 1."""
        self._count += 1
        self._since = self._clock()
        return self._count

    @property
    def used_up(self) -> bool:
        """Whether the last one has been on show for as long as it is good."""
        first = self._count <= 1
        lifetime = pairing.FIRST_CODE_LIFETIME if first else pairing.NEXT_CODE_LIFETIME
        return self._count > 0 and self._clock() - self._since >= lifetime.total_seconds() - _LATE


def cause_of(status: str, codes: CodesShown) -> Cause | None:
    """How the pairing ended; None if it did not: it succeeded, or the word is a new one."""
    if status == "timeout":
        # The library says the same when WhatsApp closes the connection while a code is on show.
        return Cause.CODES_USED_UP if codes.used_up else Cause.PAIRING_INTERRUPTED
    return _CAUSES.get(status)
