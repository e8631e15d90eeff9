"""Redacts and shortens the library's log lines and errors before they leave this process."""

import re

from service.domain.masking import cut, masked

_STANZA = re.compile(r'<([\w:-]+) [\w:-]+=".*', re.DOTALL)
"""A stanza, of which whatsmeow's lines can contain all: the names of people in it have no shape that a mask matches."""


def redact(text: str) -> str:
    """Return the text without secrets, cut to the longest text that may be logged."""
    # Masking a very long text could outlast the run permit, so cut it first, and again because masks add length.
    return cut(masked(_STANZA.sub(r"<\1>", cut(text))))
