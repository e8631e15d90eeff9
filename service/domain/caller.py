"""Define on whose behalf the service acts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """Says on whose behalf something is read or changed. Each caller may do everything; a limit would be a field."""

    id: str
    """The credential that admitted the caller, for log lines; no secret."""


TOKEN_HOLDER = Caller("token")
"""The holder of ZAP_AUTH_TOKEN."""
ANONYMOUS = Caller("anonymous")
"""A caller without a credential, where none is needed."""
NODE = Caller("node")
"""A node that acts of its own accord."""
