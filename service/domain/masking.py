"""Mask what logs must not hold, by its shape: secrets wholly, numbers of people except for their last two digits.

Free text comes from libraries, errors and stack traces, so it cannot be masked field by field. One pass covers the
text. The leftmost match wins, then the first shape in the table, so that no shape sees the remains of another one.
docs/logging.md says what stays readable and why.

A pass takes microseconds per character, so cut long text before it is masked.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

SECRET = "<secret>"  # noqa: S105 - replaces a secret
BYTES = "<bytes>"
_MIN_NUMBER_DIGITS = 7
"""Digits that make a telephone number, country code included; none is shorter."""
LONGEST_TEXT_CHARACTERS = 2000
"""Limit for free text from a library or a session process, applied in the session process and again in the node."""
CUT = "… (cut)"
"""Replaces the rest of a text. Masks and further cuts keep it."""


class _Shape(NamedTuple):
    pattern: str
    """Has no capturing groups, and looks at each character of a text a bounded number of times."""
    replace: Callable[[str], str]


def _keep(text: str) -> str:
    return text


def _secret(_: str) -> str:
    return SECRET


def _value_of_pair(text: str) -> str:
    """Replace the value of `password=…` or `"token": "…"`; keep the name."""
    name = re.match(r"[\"']?\w+[\"']?\s*[=:]\s*", text)
    return f"{name[0] if name else ''}{SECRET}"


def _number(text: str) -> str:
    digits = [character for character in text if character.isdigit()]
    return text if len(digits) < _MIN_NUMBER_DIGITS else f"…{''.join(digits[-2:])}"


_NO_URL = r"[^\s:]*(?::(?!//)[^\s:]*)*"
#: Masked whatever they hold.
_SECRETS = (
    # A pairing's QR text, whole or cut: its text is enough to take the account over.
    _Shape(r"https://wa\.me/settings/linked_devices#\S+", _secret),
    _Shape(r"\d@[\w+/=-]{20,}(?:,[\w+/=-]*)*", _secret),
    # Values of a refused row, quoted by Postgres: they may hold messages, and nothing marks their end.
    _Shape(r"(?s:Failing row contains \(.*)", lambda _: f"Failing row contains ({SECRET})."),
    _Shape(r"(?s:Key \([^()]*\)=\(.*)", lambda _: f"Key {SECRET}."),
    _Shape(r"(?s:invalid input for query argument .*)", lambda _: f"invalid input for a query argument: {SECRET}"),
    _Shape(r"(?i:\bbearer\s+)\S+", lambda _: f"Bearer {SECRET}"),
    # User and password in a URL: up to the last @, since a password may hold any character. The number of further URLs
    # before it is bounded; otherwise each URL would be searched to the end of the text.
    _Shape(rf"(?<=://){_NO_URL}(?:://{_NO_URL}){{0,3}}@", lambda _: f"{SECRET}@"),
    _Shape(
        r"(?i:[\"']?\b\w*(?:password|passwd|pwd|secret|token|auth|authorization)\b[\"']?)"
        r"(?:\s*=\s*|:(?=\S)|\s*:\s*(?=[\"']))(?:\"[^\"]*\"?|'[^']*'?|[^\s&;,\"']+)",
        _value_of_pair,
    ),
)
#: Source positions, times, durations, UUIDs, memory addresses and WhatsApp's message ids stay: logs need them.
_READABLE = (
    _Shape(r"(?<![\w.+@/-])\.{0,2}(?:/[\w.+@-]+)+\.(?:py|go|so|s)\b(?::\d+)?", _keep),
    _Shape(r"\b\d\d:\d\d:\d\d[.,]\d{1,9}\b", _keep),
    _Shape(r"(?<![\d.])\d{1,5}\.\d{1,9}(?= ?(?:[nµum]?s|seconds)\b)", _keep),
    _Shape(r"(?<![\w+/-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w+/-])", _keep),
    _Shape(r"(?<![\w+/-])0x[0-9a-f]{1,16}(?![\w+/-])", _keep),
    _Shape(
        r"(?<![0-9A-Za-z+/])(?=[0-9]*[A-Fa-f])(?![0-9A-Fa-f]{0,39}\d{10})"
        r"(?:[0-9A-F]{16,39}|[0-9a-f]{16,39})(?![0-9A-Za-z+/=])",
        _keep,
    ),
)
_SENSITIVE = (
    # A pairing code as the phone shows it, and without its hyphen.
    _Shape(r"(?<![\w+/-])[0-9A-Z]{4}-[0-9A-Z]{4}(?![\w+/-])", _secret),
    _Shape(r"(?<![\w+/-])(?=[A-Z]*[0-9])(?=[0-9]*[A-Z])[0-9A-Z]{8}(?![\w+/-])", _secret),
    # Keys, hashes and bodies: long runs of base64 or of hexadecimal digits.
    _Shape(r"(?<![\w+/-])(?=[\w+/-]*[0-9A-Z])[A-Za-z0-9+/_-]{40,}={0,2}", lambda _: BYTES),
    # Telephone numbers and the numbers in addresses, in every notation: +49 151 …, 49151…:12@s.whatsapp.net, …@lid.
    _Shape(r"\+ ?\d[\d ()./-]{5,}\d", _number),
    _Shape(rf"\d{{{_MIN_NUMBER_DIGITS},}}", _number),
)
#: Matches some part of every shape. Most values in a log do not match it and are not searched further.
_QUICK_CHECK = re.compile(r"[\d@=:(]|[Bb][Ee]|[A-Z]{4}-|[\w+/-]{40}")
_OPEN_NUMBER = re.compile(r"\+[\d ()./-]*\Z")


def cut(text: str, most: int = LONGEST_TEXT_CHARACTERS) -> str:
    """Return the beginning of free text: at most `most` characters, with the mark of the cut. Mask it afterwards.

    The cut removes a word, or a number in groups, that it would split, because half a secret has no shape. Other shapes
    with spaces match up to the end of the text if their end is missing.
    """
    if len(text) <= most:
        return text
    words = text[: most - len(CUT)].rsplit(maxsplit=1)
    return _OPEN_NUMBER.sub("", words[0] if len(words) > 1 else "") + CUT


def cut_front(text: str, most: int) -> str:
    """Return the mark and the end of free text, from a whole line on, or from a whole word if it is one line."""
    if len(text) <= most:
        return text
    kept = text[-(most - len(CUT) - 1) :]
    whole = kept.partition("\n")[2] or "".join(kept.split(maxsplit=1)[1:])
    return f"{CUT}\n{whole}"


def masked(text: str, but_for: str = "") -> str:
    """Return free text with secrets masked, and numbers of people cut to their last two digits.

    `but_for`: an id that stays readable where it is a whole word and no part of a secret.
    """
    if not _QUICK_CHECK.search(text):
        return text
    shapes, anything = _shapes(but_for if _is_masked(but_for) else "")
    body = text.removesuffix(CUT)
    return anything.sub(lambda match: shapes[(match.lastindex or 1) - 1].replace(match[0]), body) + text[len(body) :]


@functools.lru_cache(maxsize=1024)
def _is_masked(own_id: str) -> bool:
    """Return whether an id alone is masked. Most are not, and then save 1 to 2 ms to compile a pattern."""
    return bool(own_id) and masked(own_id) != own_id


@functools.lru_cache(maxsize=1024)
def _shapes(but_for: str) -> tuple[Sequence[_Shape], re.Pattern[str]]:
    own = [_Shape(rf"(?<![\w-]){re.escape(but_for)}(?![\w-])", _keep)] if but_for else []
    shapes = (*_SECRETS, *own, *_READABLE, *_SENSITIVE)
    return shapes, re.compile("|".join(f"({shape.pattern})" for shape in shapes))
