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

_VALUE = r"(?:\$\d+|excluded\.\w+|true|false|null|\d+|'[^']*')"
_SETS = rf"\w+\s*=\s*{_VALUE}(?:\s*,\s*\w+\s*=\s*{_VALUE})*(?:\s+WHERE\s[^;]*)?"
_REPEATABLE = re.compile(
    rf"""\s*(?:
        SELECT\s[^;]*
        | DELETE\s[^;]*
        | UPDATE\s+\w+\s+SET\s+{_SETS}
        | INSERT\s[^;]*\sON\s+CONFLICT\s*(?:\([^)]*\)\s*)?DO\s+(?:NOTHING|UPDATE\s+SET\s+{_SETS})
    )\s*;?\s*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
#: What a statement can do besides, or say that it did not do the second time.
_NOT_REPEATABLE = re.compile(
    r"\bRETURNING\b|\b(?:nextval|setval|lo_\w+|pg_\w+|dblink\w*|random|gen_random_uuid)\s*\(|\bINTO\s+(?:TEMP|UNLOGGED)\b"
    r"|--|/\*",
    re.IGNORECASE,
)


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
        return text is not None and bool(_REPEATABLE.fullmatch(text)) and not _NOT_REPEATABLE.search(text)

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
