"""Parse addresses to listen on: host:port, with an IPv6 address in brackets. Standard library only."""

import ipaddress
import re

_FORM = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


def split_address(address: str) -> tuple[str, int]:
    """Return host, without brackets, and port. Raises ValueError."""
    found = _FORM.fullmatch(address)
    if not found or int(found["port"]) > 65535:
        raise ValueError("must be host:port with a port from 0 to 65535, as in 127.0.0.1:50051 or [::]:50051")
    return found["host"].strip("[]"), int(found["port"])


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address. False for every name but localhost."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_anywhere(address: str) -> bool:
    """Return whether the host means every address of this machine, as 0.0.0.0 does; clients cannot call it."""
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
