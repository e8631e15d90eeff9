"""Follows the QR codes of a pairing, and maps the library's login status to the cause of its end."""

import time
from collections.abc import Callable
from datetime import timedelta

from service.domain import pairing
from service.domain.disconnect_policy import Cause

_TOLERANCE_S = 1.0
"""How much earlier than computed the last code may expire."""

_CAUSES = {
    "error": Cause.SCAN_REJECTED,
    # The connection stays open and codes are still shown, but none of them can link this device any more.
    "passkey-request": Cause.PASSKEY_REQUIRED,
    "err-client-outdated": Cause.CLIENT_OUTDATED,
    "err-unexpected-state": Cause.PAIRING_REFUSED,
    "err-scanned-without-multidevice": Cause.SCAN_REJECTED,
}


class QrSequence:
    """Counts the codes that were shown, and computes until when the last one is valid."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._ref = ""
        self._valid_until = 0.0

    def show(self, text: str) -> tuple[int, timedelta]:
        """Record that a code is shown; return its position, counted from 1, and its lifetime.

        WhatsApp may replace the secret of the current code (companion_reg_refresh). The library then shows the same
        reference again with a new secret, for the lifetime of a first code.
        """
        ref = text.rpartition("#")[2].partition(",")[0]
        refreshed = ref == self._ref
        self._ref = ref
        self._count += not refreshed
        is_long = refreshed or self._count == 1
        lifetime = pairing.FIRST_CODE_LIFETIME if is_long else pairing.NEXT_CODE_LIFETIME
        self._valid_until = self._clock() + lifetime.total_seconds()
        return self._count, lifetime

    @property
    def used_up(self) -> bool:
        """Return whether the last code has expired."""
        return self._count > 0 and self._clock() >= self._valid_until - _TOLERANCE_S


def cause_of(status: str, codes: QrSequence) -> Cause | None:
    """Return why the pairing ended; None if it succeeded or the status is unknown."""
    if status == "timeout":
        # The library reports the same status when WhatsApp closes the connection while a code is shown.
        return Cause.CODES_USED_UP if codes.used_up else Cause.PAIRING_INTERRUPTED
    return _CAUSES.get(status)
