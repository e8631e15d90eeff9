"""At which address other nodes call this one."""

import contextlib
import ipaddress
import socket

from service.domain.addresses import is_anywhere, split_address

_LOOPBACK = "127.0.0.1"
_ANY_PORT = 9
"""Nothing is sent: the kernel is asked which way it would go."""


class OwnAddress:
    """What was set; or, of a node that listens everywhere, the address from which this machine reaches its database.

    All nodes reach that, so most often they reach each other there. It is looked up each time it is asked for: a
    container that was taken off its network and put back has another one.
    """

    def __init__(self, called: str, port: int, *, database_host: str) -> None:
        """`called`: host:port; `port` is for where that has 0. `database_host`: a name, an address, or a folder."""
        host, given = split_address(called)
        self._port = given or port
        self._way = _first_address(database_host) if is_anywhere(called) else None
        self._host = _LOOPBACK if self._way else host

    def __str__(self) -> str:
        """host:port, as of now."""
        host = self._look()
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def is_of_this_machine_alone(self) -> bool:
        """It was found out, and no other machine can call it: the database is on this one."""
        return self._way is not None and ipaddress.ip_address(self._look()).is_loopback

    def _look(self) -> str:
        """The host, as of now; what it was if there is no way to the database."""
        if self._way is not None:
            family, database = self._way
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as way:
                way.connect((database, _ANY_PORT))
                self._host = way.getsockname()[0]
        return self._host


def _first_address(host: str) -> tuple[socket.AddressFamily, str]:
    if host.startswith(("/", "@")):
        return socket.AF_INET, _LOOPBACK
    # Once, when the node starts and has just connected there: a name is not looked up while leases are renewed.
    family, *_, address = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
    return family, str(address[0])
