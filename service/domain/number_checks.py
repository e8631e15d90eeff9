"""Keep WhatsApp's answers about phone numbers for a while, and bound how many a session asks for."""

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

KEPT_S = 3600.0
"""Seconds that an answer is kept."""
MOST_KEPT = 1000
"""Answers kept for each session: some 300 KiB."""
BURST_PART = 0.1
"""Part of an hour's budget that can be asked at once."""

_SEPARATORS = re.compile(r"[ \u00a0()/.-]+")
_NUMBER = re.compile(r"\+?([1-9][0-9]{6,14})")


@dataclass(frozen=True)
class NumberAnswer:
    """Holds WhatsApp's answer about a number."""

    is_on_whatsapp: bool
    jid: str = field(default="", repr=False)
    """The account's address, which may have another number or be a LID."""
    business_name: str = field(default="", repr=False)


def digits_of(text: str) -> str:
    """Return the digits of a phone number with country code, an empty text if it is none."""
    match = _NUMBER.fullmatch(_SEPARATORS.sub("", text))
    return match[1] if match else ""


class NumberBudget:
    """Bounds how many numbers a session asks for: `per_hour` in the long run, and a tenth of it at once.

    One call may go beyond what is left, so that a call of any size can succeed. The next one waits until that is made
    up for.
    """

    def __init__(self, per_hour: int, now: float) -> None:
        """`now`: seconds of a monotonic clock."""
        self._per_second = per_hour / 3600
        self._most = max(1.0, per_hour * BURST_PART)
        self._left = self._most
        self._updated = now

    def spend(self, count: int, now: float) -> float:
        """Spend `count` and return 0.0, or spend nothing and return the seconds until the same call can succeed."""
        self._left = min(self._most, self._left + (now - self._updated) * self._per_second)
        self._updated = now
        missing = min(float(count), self._most) - self._left
        if missing > 0:
            return missing / self._per_second
        self._left -= count
        return 0.0


class NumberAnswers:
    """Keeps the latest answers of a session."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, NumberAnswer]] = OrderedDict()

    def known(self, numbers: Collection[str], now: float) -> dict[str, NumberAnswer]:
        """Return the answers that are kept, by number."""
        found = ((number, self._kept.get(number)) for number in numbers)
        return {number: kept[1] for number, kept in found if kept is not None and now - kept[0] < KEPT_S}

    def keep(self, answers: Mapping[str, NumberAnswer], now: float) -> None:
        """Keep answers, and drop the oldest ones above MOST_KEPT."""
        for number, answer in answers.items():
            self._kept[number] = (now, answer)
            self._kept.move_to_end(number)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
