"""Check proxy URLs, and hide their passwords. Standard library only."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

SCHEMES = ("http", "https", "socks5", "socks5h")
HIDDEN = "***"
"""Replaces a password wherever a proxy is shown."""

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def check_proxy(url: str) -> None:
    """Raise ValueError, with what would be right, if a session cannot use this proxy.

    The error never repeats the URL, which may hold a password.
    """
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("must not contain spaces or control characters; percent-encode them")
    parts = _split(url)
    if parts.scheme.lower() not in SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    _check_host(parts)
    if parts.port is None or parts.port == 0:
        raise ValueError("must name a port from 1 to 65535, as in socks5://proxy.example:1080")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("must end after the port; percent-encode / ? # in user and password")


def hide_password(url: str) -> str:
    """Return the URL with *** for its password. A URL that cannot be parsed is hidden whole."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return HIDDEN
    if password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{HIDDEN}@{host}").geturl()


def has_hidden_password(url: str) -> bool:
    """Return whether the password is ***, as in a URL copied from a response."""
    try:
        return urlsplit(url).password == HIDDEN
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - urlsplit checks the port only when it is read
    except ValueError as error:
        raise ValueError("must be a URL such as socks5://user:password@proxy.example:1080") from error
    return parts


def _check_host(parts: SplitResult) -> None:
    host = parts.hostname or ""
    if ":" in host or "[" in parts.netloc:
        # urlsplit accepts anything between brackets.
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError as error:
            raise ValueError("must name an IPv6 address between the brackets") from error
    elif len(host) > 253 or not all(_NAME.fullmatch(label) for label in host.removesuffix(".").split(".")):
        raise ValueError("must name a host: a DNS name or an IP address")
