"""The liveness socket of a node: by it the kernel says whether a process of the node is left.

A node binds an abstract Unix socket that is named after its incarnation, before it announces itself. Its zygote and all
its session processes inherit the descriptor and keep it, so the kernel frees the name when the last of these processes
has ended, and not before. A process that is frozen, dumps its core or waits for a disk still has the name. Whether the
name is taken is found out by binding it: the answer does not depend on process ids, timeouts or files.

An abstract name belongs to one network namespace. So only nodes of the same `scope` may ask about each other.
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
    """Held by a node from its first moment to its end."""

    def __init__(self, incarnation: UUID) -> None:
        self.incarnation = incarnation
        self.scope = scope()
        """Where it can be seen."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(_name(incarnation))
        except BaseException:
            self._socket.close()
            raise

    @property
    def fileno(self) -> int:
        """The descriptor, which programs that are executed do not inherit unless it is passed to them."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of it, once the other processes of the node are dead."""
        self._socket.close()


def is_held(incarnation: UUID) -> bool:
    """Return whether a process of this node is left, or may be left. The node's scope must be the caller's own."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # The type has to be the same as above: sockets of two types can have the same name.
            probe.bind(_name(incarnation))
    except OSError:
        # EADDRINUSE; with any other error nothing is known.
        return True
    return False


def scope() -> str | None:
    """Return where the abstract names of this process can be seen: in this boot, in this network namespace.

    None if the kernel does not say it. The number of a namespace can be given to another one later. Even then nothing
    wrong follows, since a socket keeps its namespace alive: once the number is free, no such socket is left.
    """
    with contextlib.suppress(OSError):
        namespace = _NETWORK_NAMESPACE.stat()
        if boot_id := _BOOT_ID.read_text().strip():
            return f"{boot_id}/{namespace.st_dev}:{namespace.st_ino}"
    return None


def inherit(descriptor: int) -> None:
    """Keep a liveness socket that was passed at exec from programs executed later. Raises ValueError if it is none."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003
    with socket.socket(fileno=os.dup(descriptor)) as inherited:
        if inherited.family != socket.AF_UNIX or not _is_name(inherited.getsockname()):
            raise ValueError(f"descriptor {descriptor} is not the liveness socket of a node")


def _name(incarnation: UUID) -> bytes:
    return _PREFIX + str(incarnation).encode()


def _is_name(name: object) -> bool:
    return isinstance(name, bytes) and name.startswith(_PREFIX)
