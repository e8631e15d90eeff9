"""The library's lines and errors as they leave this process: without secrets, and no longer than a text may be."""

from service.domain.masking import cut, masked


def redact(text: str) -> str:
    """The text as it may be written down."""
    # Cut before it is masked, or a long one would cost this process its watchdog; and after, since masks are words too.
    return cut(masked(cut(text)))
