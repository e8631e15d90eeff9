"""The liveness socket of a node, which shows whether a process of the node is left.

A node binds an abstract Unix socket named after its incarnation before it announces itself. Its zygote and all its
session processes inherit the descriptor, so the kernel frees the name only when the last of these processes has ended.
A process that is frozen, dumps core or waits for a disk still holds the name. Another node tests the name by binding
it, which does not depend on process ids, timeouts or files.

An abstract name belongs to one network namespace, so only nodes of the same `scope` can test each other.
"""

import contextlib
import os
import socket
from pathlib import Path
from uuid import UUID

_PREFIX = b"\0zap-node-"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK_NAMESPACE = Path("/proc/self/ns/net")


class LivenessSocket:
    """The bound socket that a node holds from its start to its end."""

    def __init__(self, incarnation: UUID) -> None:
        self.incarnation = incarnation
        self.scope = scope()
        """The scope in which the socket is visible; None if it is unknown."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(_name(incarnation))
        except BaseException:
            self._socket.close()
            raise

    @property
    def fileno(self) -> int:
        """The descriptor, which an executed program inherits only if it is passed explicitly."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, once the other processes of the node are dead."""
        self._socket.close()


def is_held(incarnation: UUID) -> bool:
    """Return whether a process of the node is or may be left. The node's scope must be that of the caller."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # The same socket type as above: sockets of different types can have the same name.
            probe.bind(_name(incarnation))
    except OSError:
        # EADDRINUSE; any other error leaves it unknown.
        return True
    return False


def scope() -> str | None:
    """Return the boot and the network namespace in which abstract names of this process are visible.

    Return None if they are unknown. A namespace's number can be reused, which is safe: a socket keeps its namespace
    alive, so no socket is left once the number is free.
    """
    with contextlib.suppress(OSError):
        namespace = _NETWORK_NAMESPACE.stat()
        if boot_id := _BOOT_ID.read_text().strip():
            return f"{boot_id}/{namespace.st_dev}:{namespace.st_ino}"
    return None


def inherit(descriptor: int) -> None:
    """Make an inherited liveness socket non-inheritable. Raise ValueError if it is no liveness socket."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003
    with socket.socket(fileno=os.dup(descriptor)) as inherited:
        name = inherited.getsockname()
        if inherited.family != socket.AF_UNIX or not (isinstance(name, bytes) and name.startswith(_PREFIX)):
            raise ValueError(f"descriptor {descriptor} is not the liveness socket of a node")


def _name(incarnation: UUID) -> bytes:
    return _PREFIX + str(incarnation).encode()
