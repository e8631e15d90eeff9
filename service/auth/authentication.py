"""Authenticates callers by the bearer token of ZAP_AUTH_TOKEN."""

import hmac
from collections.abc import Iterable

from service.domain.caller import ANONYMOUS, TOKEN_HOLDER, Caller
from service.domain.errors import Unauthenticated

_SCHEME = "bearer "
_HEALTH = "/grpc.health.v1.Health/"
"""Probes carry no token. The health service reveals only whether this node serves."""


def is_open(method: str) -> bool:
    """Return whether calls of this method never need the token."""
    return method.startswith(_HEALTH)


class Authentication:
    """Admits calls. An empty token admits every call, which `service.node.config` allows on loopback only."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return the caller. Raise Unauthenticated if the method needs the token and the metadata has none."""
        if not self._token or is_open(method):
            return ANONYMOUS
        for key, value in metadata:
            if key == "authorization" and self._matches(value):
                return TOKEN_HOLDER
        raise Unauthenticated("this call needs the metadata authorization: Bearer <ZAP_AUTH_TOKEN>")

    def _matches(self, value: str | bytes) -> bool:
        text = value.encode() if isinstance(value, str) else value
        scheme, token = text[: len(_SCHEME)], text[len(_SCHEME) :]
        # Compare in constant time: an early exit would reveal how much of a guess is right.
        return scheme.lower() == _SCHEME.encode() and hmac.compare_digest(token, self._token)
