"""What must not be read in a log: the library's lines and errors go through here before they leave the process."""

import re

LONGEST_LINE = 2000

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # The QR text, with or without its address: whoever has it can take the account over.
    (re.compile(r"https://wa\.me/settings/linked_devices#\S+"), "[qr]"),
    (re.compile(r"\b[0-9]@[\w+/=,-]{40,}"), "[qr]"),
    # A pairing code, as the phone shows it.
    (re.compile(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}\b"), "[code]"),
    # Name and password in an address (database, proxy).
    (re.compile(r"(?<=://)[^/\s@]+@"), "[credentials]@"),
    (re.compile(r"(?i)\b(password|passwd|secret|token)=\S+"), r"\1=[secret]"),
    # Keys, hashes and bodies: long runs of base64 or of hexadecimal digits.
    (re.compile(r"\b(?=[\w+/]*[0-9A-Z])[A-Za-z0-9+/_-]{40,}={0,2}"), "[bytes]"),
    # Phone numbers and the numbers in addresses; the last two digits tell two of them apart.
    (re.compile(r"\d{4,}(\d\d)"), r"…\1"),
)


def redact(text: str) -> str:
    """The text without secrets, and no longer than a line may be."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"
