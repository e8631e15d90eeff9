"""Finds the address at which other nodes call this one."""

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from service.domain.addresses import is_anywhere, split_address

_LOOPBACK = "127.0.0.1"
_ANY_PORT = 9
"""Nothing is sent to this port. Connecting a UDP socket only makes the kernel choose a route."""


class AdvertisedAddress:
    """The configured address, or, for a wildcard address, the local address of the route to the database.

    All nodes reach the database, so they usually reach each other by the same route. The route is looked up on each
    use, because a container that is reattached to its network gets another address.
    """

    def __init__(self, called: str, port: int, *, database_hosts: Sequence[str]) -> None:
        """Take `called` as host:port, `port` instead of a port of 0, and names, addresses or folders of databases."""
        self._host, given = split_address(called)
        self._port = given or port
        self._is_wildcard = is_anywhere(called)
        self._routes: list[tuple[int, str]] = []
        if self._is_wildcard:
            # A node that listens on IPv4 only must not advertise an IPv6 address.
            family = socket.AF_UNSPEC if ":" in self._host else socket.AF_INET
            # Resolve names at startup only: a slow resolver must not delay lease renewals.
            self._routes = [route for host in database_hosts for route in _resolve(host, family)]
            self._host = _LOOPBACK

    def __str__(self) -> str:
        """Return the current host:port."""
        host = self._current_host()
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def is_of_this_machine_alone(self) -> bool:
        """Return whether the address was derived and is loopback: the database is local, or there is no route to it."""
        return self._is_wildcard and ipaddress.ip_address(self._current_host()).is_loopback

    def _current_host(self) -> str:
        """Return the local address of the route to the database, or the last known one if there is no route."""
        for family, address in self._routes:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, _ANY_PORT))
                self._host = probe.getsockname()[0]
                break
        return self._host


def _resolve(host: str, family: int) -> list[tuple[int, str]]:
    """Return (family, address) pairs of a host; none for a folder or a name that does not resolve."""
    if host.startswith(("/", "@")):
        return []
    try:
        found = socket.getaddrinfo(host, _ANY_PORT, family, socket.SOCK_DGRAM)
    except socket.gaierror:
        # With several database hosts, it suffices that another one resolves.
        return []
    return [(resolved_family, str(address[0])) for resolved_family, _, _, _, address in found]
