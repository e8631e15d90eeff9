"""Redacts and shortens the library's log lines and errors before they leave this process."""

import re

from service.domain.masking import cut, masked

_SLOW_HANDLING = "Node handling "
"""Begins whatsmeow's lines about a stanza that takes long, which end with the whole stanza: names and all."""


def redact(text: str) -> str:
    """Return the text without secrets, cut to the longest text that may be logged."""
    if text.startswith(_SLOW_HANDLING) and " for <" in text:
        begin, _, stanza = text.partition(" for <")
        text = f"{begin} for <{re.split('[ />]', stanza, maxsplit=1)[0]}>"
    # Masking a very long text could outlast the run permit, so cut it first, and again because masks add length.
    return cut(masked(cut(text)))
