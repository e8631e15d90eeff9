"""At which address other nodes call this one."""

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from service.domain.addresses import is_anywhere, split_address

_LOOPBACK = "127.0.0.1"
_ANY_PORT = 9
"""Nothing is sent: the kernel is asked which way it would go."""


class AdvertisedAddress:
    """What was set; or, of a node that listens everywhere, the address from which this machine reaches its database.

    All nodes reach that, so most often they reach each other there. It is looked up each time it is asked for: a
    container that was taken off its network and put back has another one.
    """

    def __init__(self, called: str, port: int, *, database_hosts: Sequence[str]) -> None:
        """`called`: host:port; `port` is for where that has 0. `database_hosts`: names, addresses, or folders."""
        self._host, given = split_address(called)
        self._port = given or port
        self._is_found_out = is_anywhere(called)
        self._ways: list[tuple[int, str]] = []
        if self._is_found_out:
            # Nobody is called by IPv6 who listens for IPv4 alone.
            family = socket.AF_UNSPEC if ":" in self._host else socket.AF_INET
            # Once, when the node starts and has just connected: a name is not looked up while leases are renewed.
            self._ways = [way for host in database_hosts for way in _ways_to(host, family)]
            self._host = _LOOPBACK

    def __str__(self) -> str:
        """host:port, as of now."""
        host = self._look()
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def is_of_this_machine_alone(self) -> bool:
        """It was found out, and no other machine can call it: the database is on this one, or no way leads to it."""
        return self._is_found_out and ipaddress.ip_address(self._look()).is_loopback

    def _look(self) -> str:
        """The host, as of now; what it was if there is no way to the database."""
        for family, address in self._ways:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as way:
                way.connect((address, _ANY_PORT))
                self._host = way.getsockname()[0]
                break
        return self._host


def _ways_to(host: str, family: int) -> list[tuple[int, str]]:
    """Families and addresses by which a host may be reached; none for one that has no name now, or is a folder."""
    if host.startswith(("/", "@")):
        return []
    try:
        found = socket.getaddrinfo(host, _ANY_PORT, family, socket.SOCK_DGRAM)
    except socket.gaierror:
        # One of several servers, perhaps: another one was reached.
        return []
    return [(of, str(address[0])) for of, _, _, _, address in found]
