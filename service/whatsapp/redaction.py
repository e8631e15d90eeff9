"""The library's lines and errors as they leave this process: without secrets, and no longer than a line may be."""

from service.domain.masking import masked

LONGEST_LINE = 2000


def redact(text: str) -> str:
    """The text as it may be written down."""
    text = masked(text)
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"
