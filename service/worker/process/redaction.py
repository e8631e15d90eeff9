"""Redacts and shortens the library's log lines and errors before they leave this process."""

from service.domain.masking import cut, masked


def redact(text: str) -> str:
    """Return the text without secrets, cut to the longest text that may be logged."""
    # Cut before masking, because masking a very long text could outlast the run permit. Cut again, because masks can
    # make the text longer.
    return cut(masked(cut(text)))
