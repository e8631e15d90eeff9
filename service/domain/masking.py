"""What a log must not hold, known by its shape: secrets never, numbers of people but for their last two digits.

Free text comes from libraries, from errors and from stack traces; nobody can say field by field what is in it. One
pass over the text, the leftmost shape first and of several the first in the table, so that no shape sees what another
one left. docs/logging.md says what stays readable and why.

A pass takes microseconds for each character, whatever the text is. So text of any length is cut first.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

SECRET = "<secret>"  # noqa: S105 - it stands where one was
BYTES = "<bytes>"
FEWEST_DIGITS = 7
"""Of what may be a person's number: country codes and all, none is shorter."""
LONGEST_TEXT_CHARACTERS = 2000
"""Of free text from a library or a session process. It is cut in the session process and again in the node."""
CUT = "… (cut)"
"""It stands where the rest of a text was, and stays through every mask and every further cut."""


class _Shape(NamedTuple):
    pattern: str
    """Without groups that capture; it looks at each character of a text a bounded number of times."""
    replace: Callable[[str], str]


def _stays(text: str) -> str:
    return text


def _secret(_: str) -> str:
    return SECRET


def _value_of_pair(text: str) -> str:
    """`password=…`, `"token": "…"`: the name stays."""
    name = re.match(r"[\"']?\w+[\"']?\s*[=:]\s*", text)
    return f"{name[0] if name else ''}{SECRET}"


def _number(text: str) -> str:
    digits = [character for character in text if character.isdigit()]
    return text if len(digits) < FEWEST_DIGITS else f"…{''.join(digits[-2:])}"


_NO_ADDRESS = r"[^\s:]*(?::(?!//)[^\s:]*)*"
#: They go whatever is in them.
_SECRETS = (
    # A pairing's QR text, cut short or whole: whoever scans it takes the account over.
    _Shape(r"https://wa\.me/settings/linked_devices#\S+", _secret),
    _Shape(r"\d@[\w+/=-]{20,}(?:,[\w+/=-]*)*", _secret),
    # What Postgres quotes: the values of a row that it refuses may be anybody's words. Nothing says where they end.
    _Shape(r"(?s:Failing row contains \(.*)", lambda _: f"Failing row contains ({SECRET})."),
    _Shape(r"(?s:Key \([^()]*\)=\(.*)", lambda _: f"Key {SECRET}."),
    _Shape(r"(?s:invalid input for query argument .*)", lambda _: f"invalid input for a query argument: {SECRET}"),
    _Shape(r"(?i:\bbearer\s+)\S+", lambda _: f"Bearer {SECRET}"),
    # Name and password in an address: to the last @, since a password may hold any character. But not behind any
    # number of further addresses: each would be searched to the end of the text.
    _Shape(rf"(?<=://){_NO_ADDRESS}(?:://{_NO_ADDRESS}){{0,3}}@", lambda _: f"{SECRET}@"),
    _Shape(
        r"(?i:[\"']?\b\w*(?:password|passwd|pwd|secret|token|authorization)\b[\"']?)"
        r"(?:\s*=\s*|:(?=\S)|\s*:\s*(?=[\"']))(?:\"[^\"]*\"?|'[^']*'?|[^\s&;,\"']+)",
        _value_of_pair,
    ),
)
#: Places in programs, times, durations, UUIDs, addresses in memory and WhatsApp's ids of messages stay: without them a
#: log explains nothing.
_READABLE = (
    _Shape(r"(?<![\w.+@/-])\.{0,2}(?:/[\w.+@-]+)+\.(?:py|go|so|s)\b(?::\d+)?", _stays),
    _Shape(r"\b\d\d:\d\d:\d\d[.,]\d{1,9}\b", _stays),
    _Shape(r"(?<![\d.])\d{1,5}\.\d{1,9}(?= ?(?:[nµum]?s|seconds)\b)", _stays),
    _Shape(r"(?<![\w+/-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w+/-])", _stays),
    _Shape(r"(?<![\w+/-])0x[0-9a-f]{1,16}(?![\w+/-])", _stays),
    _Shape(
        r"(?<![0-9A-Za-z+/])(?=[0-9]*[A-Fa-f])(?![0-9A-Fa-f]{0,39}\d{10})"
        r"(?:[0-9A-F]{16,39}|[0-9a-f]{16,39})(?![0-9A-Za-z+/=])",
        _stays,
    ),
)
_OTHERS = (
    # A pairing code as the phone shows it, and without its hyphen.
    _Shape(r"(?<![\w+/-])[0-9A-Z]{4}-[0-9A-Z]{4}(?![\w+/-])", _secret),
    _Shape(r"(?<![\w+/-])(?=[A-Z]*[0-9])(?=[0-9]*[A-Z])[0-9A-Z]{8}(?![\w+/-])", _secret),
    # Keys, hashes and bodies: long runs of base64 or of hexadecimal digits.
    _Shape(r"(?<![\w+/-])(?=[\w+/-]*[0-9A-Z])[A-Za-z0-9+/_-]{40,}={0,2}", lambda _: BYTES),
    # Telephone numbers and the numbers in addresses, in every notation: +49 151 …, 49151…:12@s.whatsapp.net, …@lid.
    _Shape(r"\+ ?\d[\d ()./-]{5,}\d", _number),
    _Shape(rf"\d{{{FEWEST_DIGITS},}}", _number),
)
#: What every shape has something of. Most values in a log have not, and need not be looked at closely.
_PERHAPS = re.compile(r"[\d@=:(]|[Bb][Ee]|[A-Z]{4}-|[\w+/-]{40}")
_OPEN_NUMBER = re.compile(r"\+[\d ()./-]*\Z")


def cut(text: str, most: int = LONGEST_TEXT_CHARACTERS) -> str:
    """The beginning of free text, of `most` characters with the mark of the cut; to be masked after that.

    It ends before the word, or the number in groups, that is cut in two: half a secret has no shape. What else has
    spaces in it is masked to the end of the text where its end is missing.
    """
    if len(text) <= most:
        return text
    words = text[: most - len(CUT)].rsplit(maxsplit=1)
    return _OPEN_NUMBER.sub("", words[0] if len(words) > 1 else "") + CUT


def cut_front(text: str, most: int) -> str:
    """The end of free text, from a whole line on, or a whole word if it is all one line; the mark stands before it."""
    if len(text) <= most:
        return text
    kept = text[-(most - len(CUT) - 1) :]
    whole = kept.partition("\n")[2] or "".join(kept.split(maxsplit=1)[1:])
    return f"{CUT}\n{whole}"


def masked(text: str, but_for: str = "") -> str:
    """Free text without what looks like a secret, and with people's numbers cut to their last two digits.

    `but_for`: an id that stays readable where it stands by itself and is no part of a secret.
    """
    if not _PERHAPS.search(text):
        return text
    shapes, anything = _shapes(but_for if _is_masked(but_for) else "")
    body = text.removesuffix(CUT)
    return anything.sub(lambda match: shapes[(match.lastindex or 1) - 1].replace(match[0]), body) + text[len(body) :]


@functools.lru_cache(maxsize=1024)
def _is_masked(own_id: str) -> bool:
    """Return whether an id is masked by itself. Most are not, and need no shapes of their own (1 to 2 ms)."""
    return bool(own_id) and masked(own_id) != own_id


@functools.lru_cache(maxsize=1024)
def _shapes(but_for: str) -> tuple[Sequence[_Shape], re.Pattern[str]]:
    own = [_Shape(rf"(?<![\w-]){re.escape(but_for)}(?![\w-])", _stays)] if but_for else []
    shapes = (*_SECRETS, *own, *_READABLE, *_OTHERS)
    return shapes, re.compile("|".join(f"({shape.pattern})" for shape in shapes))
