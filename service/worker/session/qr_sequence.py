"""The end of a pairing, from the one word that the library has for it."""

import time
from collections.abc import Callable
from datetime import timedelta

from service.domain import pairing
from service.domain.disconnect_policy import Cause

_LATE = 1.0
"""Seconds by which the last code's end may seem to come early."""

_CAUSES = {
    "error": Cause.SCAN_REJECTED,
    # The connection stays and codes go on being shown, but none of them can link any more (neonize-facts, 10).
    "passkey-request": Cause.PASSKEY_REQUIRED,
    "err-client-outdated": Cause.CLIENT_OUTDATED,
    "err-unexpected-state": Cause.PAIRING_REFUSED,
    "err-scanned-without-multidevice": Cause.SCAN_REJECTED,
}


class QrSequence:
    """The codes of this process: how many, and until when the last one is good."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._ref = ""
        self._good_until = 0.0

    def show(self, text: str) -> tuple[int, timedelta]:
        """One more; its position, from 1, and how long it is good.

        WhatsApp may retire the secret of the code on show (companion_reg_refresh): the library then shows the same
        reference once more with a new secret, as long as it shows a first one.
        """
        ref = text.rpartition("#")[2].partition(",")[0]
        refreshed = ref == self._ref
        self._ref = ref
        self._count += not refreshed
        is_long = refreshed or self._count == 1
        lifetime = pairing.FIRST_CODE_LIFETIME if is_long else pairing.NEXT_CODE_LIFETIME
        self._good_until = self._clock() + lifetime.total_seconds()
        return self._count, lifetime

    @property
    def used_up(self) -> bool:
        """Whether the last one has been on show for as long as it is good."""
        return self._count > 0 and self._clock() >= self._good_until - _LATE


def cause_of(status: str, codes: QrSequence) -> Cause | None:
    """How the pairing ended; None if it did not: it succeeded, or the word is a new one."""
    if status == "timeout":
        # The library says the same when WhatsApp closes the connection while a code is on show.
        return Cause.CODES_USED_UP if codes.used_up else Cause.PAIRING_INTERRUPTED
    return _CAUSES.get(status)
