"""What a client has asked and has no answer to, and whether another connection may be asked the same.

Nobody can know whether a server that was lost has done what it was asked. So only that is asked twice which has the
same outcome if it is done twice: reads, and writes that say what shall be and not by how much it shall change. The
library's are of that kind, but for its transactions. What is not known is not asked again.
"""

import re
import struct
from collections.abc import Iterator

LONGEST = 1024 * 1024
"""Bytes of a question that is kept. The library's largest, a few hundred new keys, takes some 50 KiB."""

_LENGTH = struct.Struct("!I")
_HEADER = 5
_SIMPLE = b"Q"
#: Parse, Bind, perhaps Describe, Execute, Sync: what lib/pq sends in one go.
_EXTENDED = frozenset({b"PBDES", b"PBES"})

_STRING = re.compile(r"'[^']*'")
#: What hides a part of a text from the patterns below, or begins another statement, outside of strings.
_OBSCURE = re.compile(r"--|/\*|['\";]|\$(?!\d)")
#: A call; or a word that a parenthesis can follow, too.
_CALL = re.compile(r"\b(\w++)\s*+\(")
_HARMLESS = {
    *("ALL", "AND", "ANY", "AS", "BY", "CONFLICT", "ELSE", "EXISTS", "FROM", "IN", "INTO", "NOT", "ON", "OR"),
    *("SELECT", "THEN", "UNION", "VALUES", "WHEN", "WHERE"),
    *("COALESCE", "COUNT", "LOWER", "MAX", "MIN", "REPLACE", "UPPER"),
}
_RETURNING = re.compile(r"\bRETURNING\b", re.IGNORECASE)
_INTO = re.compile(r"\bINTO\b", re.IGNORECASE)
_TABLE = re.compile(r"\bINTO\s+\w++", re.IGNORECASE)
_CONFLICT = re.compile(r"\sON\s+CONFLICT\b", re.IGNORECASE)
_VALUE = r"(?:\$\d+|excluded\.\w+|true|false|null|\d+)"
_SETS = rf"\w+\s*=\s*{_VALUE}(?:\s*,\s*\w+\s*=\s*{_VALUE})*(?:\s+WHERE\s.*)?"
_UPDATE = re.compile(rf"UPDATE\s+\w+\s+SET\s+{_SETS}", re.IGNORECASE | re.DOTALL)
_DO = re.compile(rf"\s*(?:\([^)]*\)\s*)?DO\s+(?:NOTHING|UPDATE\s+SET\s+{_SETS})", re.IGNORECASE | re.DOTALL)


def has_same_outcome_twice(text: str) -> bool:
    """Whether a statement has. Takes time in proportion to its length: the relay does nothing else meanwhile."""
    # Behind a backslash, a string may end elsewhere than it seems to.
    if "\\" in text:
        return False
    text = _STRING.sub("0", text.strip().removesuffix(";").rstrip())
    return not _does_more(text) and _says_what_shall_be(text)


def _does_more(text: str) -> bool:
    """Than its first words say, or may do; or says what it did."""
    # Nobody knows what a function does.
    calls = {name.upper() for name in _CALL.findall(_TABLE.sub("INTO", text))}
    return bool(_OBSCURE.search(text) or _RETURNING.search(text) or calls - _HARMLESS)


def _says_what_shall_be(text: str) -> bool:
    match text.partition(" ")[0].upper().split():
        case ["SELECT", *_]:
            return not _INTO.search(text)
        case ["DELETE", *_]:
            return True
        case ["UPDATE", *_]:
            return _UPDATE.fullmatch(text) is not None
        case ["INSERT", *_]:
            _, *conflicts = _CONFLICT.split(text)
            return len(conflicts) == 1 and _DO.fullmatch(conflicts[0]) is not None
    return False


class Question:
    """All that a client has said since it last had all its answers."""

    def __init__(self) -> None:
        self._said = bytearray()
        self._is_too_long = False

    def __bytes__(self) -> bytes:
        return bytes(self._said)

    def add(self, data: bytes) -> None:
        """It goes on."""
        self._is_too_long = self._is_too_long or len(self._said) + len(data) > LONGEST
        if not self._is_too_long:
            self._said += data

    def clear(self) -> None:
        """It was answered."""
        self._said.clear()
        self._is_too_long = False

    @property
    def stands_alone(self) -> bool:
        """Whether it is one statement, whole, that needs nothing which was said before."""
        return self._text() is not None

    @property
    def may_be_repeated(self) -> bool:
        """Whether, besides, it may be asked of a server after another one may have done it."""
        text = self._text()
        return text is not None and has_same_outcome_twice(text)

    def _text(self) -> str | None:
        if self._is_too_long:
            return None
        messages = list(self._messages())
        kinds = b"".join(kind for kind, _ in messages)
        if sum(_HEADER + len(body) for _, body in messages) != len(self._said):
            return None
        if kinds == _SIMPLE:
            text = messages[0][1].partition(b"\0")[0]
        elif kinds in _EXTENDED:
            name, _, rest = messages[0][1].partition(b"\0")
            text = rest.partition(b"\0")[0]
            # Bind: a portal and a statement, both without a name. The others ask for that portal.
            if name or not messages[1][1].startswith(b"\0\0"):
                return None
        else:
            return None
        return text.decode(errors="replace")

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        position = 0
        while len(self._said) - position >= _HEADER:
            (length,) = _LENGTH.unpack_from(self._said, position + 1)
            end = position + 1 + length
            if length < _LENGTH.size or end > len(self._said):
                return
            yield bytes(self._said[position : position + 1]), bytes(self._said[position + _HEADER : end])
            position = end
