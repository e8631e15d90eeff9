"""Who may call: whoever sends the bearer token of ZAP_AUTH_TOKEN."""

import hmac
from collections.abc import Iterable

from service.domain.errors import Unauthenticated

_SCHEME = "bearer "
_HEALTH = "/grpc.health.v1.Health/"
"""Probes carry no token, and learn no more than whether this node serves."""


def is_open(method: str) -> bool:
    """Calls of this method never need the token."""
    return method.startswith(_HEALTH)


class Authentication:
    """Admits calls. With an empty token it admits every one, which `service.node.config` allows on loopback only."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def needed(self, method: str) -> bool:
        """Calls of this method must show the token."""
        return bool(self._token) and not is_open(method)

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raise Unauthenticated unless this metadata of a call holds the token."""
        for key, value in metadata:
            if key == "authorization" and self._matches(value):
                return
        raise Unauthenticated("this call needs the metadata authorization: Bearer <ZAP_AUTH_TOKEN>")

    def _matches(self, value: str | bytes) -> bool:
        text = value.encode() if isinstance(value, str) else value
        scheme, token = text[: len(_SCHEME)], text[len(_SCHEME) :]
        # In constant time: the time of a comparison that stops at the first difference tells how far a guess is right.
        return scheme.lower() == _SCHEME.encode() and hmac.compare_digest(token, self._token)
