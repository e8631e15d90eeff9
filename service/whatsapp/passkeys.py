"""Whether WhatsApp asks for a passkey, which this client cannot give.

neonize neither shows the request nor exports an answer (fact 10). What is left is whatsmeow's log: at debug level every
stanza that comes in is a line.
"""

import re

_STANZAS = re.compile(r"(^|/)Recv$")
_REQUEST = re.compile(r"<notification[^>]*type=\"passkey|<passkey[_-]|shortcake", re.IGNORECASE)
_WORDS = re.compile(r"passkey (notification|options|linking)", re.IGNORECASE)


def is_request(logger: str, line: str) -> bool:
    """Whether this line of the library's log is about such a request."""
    if _STANZAS.search(logger):
        return _REQUEST.search(line) is not None
    return _WORDS.search(line) is not None
