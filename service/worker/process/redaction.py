"""Redacts and shortens the library's log lines and errors before they leave this process."""

from service.domain.masking import cut, masked


def redact(text: str) -> str:
    """Return the text without secrets, cut to the longest text that may be logged."""
    # Masking a very long text could outlast the run permit, so cut it first, and again because masks add length.
    return cut(masked(cut(text)))
