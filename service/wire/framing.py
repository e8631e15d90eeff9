"""How a node, its zygote and its session processes talk. Shared by all three; nothing else is.

- Between a node and a session process: a stream of protobuf messages (`zap.worker.v1`), each behind its length in four
  bytes, big endian. `Command` goes down, `Frame` comes up.
- Between a node and its zygote: packets (`SOCK_SEQPACKET`) of a little JSON, with file descriptors attached. Secrets
  never pass here.
"""

import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

LONGEST_FRAME_BYTES = 16 * 1024 * 1024
"""Bytes of the longest message. WhatsApp's own are below 1 MiB; more than this is garbage, not a message."""
LONGEST_WITHOUT_EVENT = 64 * 1024
"""Bytes of the longest frame that reports no event: a log line, a code, a name, an error."""

MOST_CALLS = 64
"""Calls to WhatsApp that a session process has in flight at once. It refuses more; its node has them wait."""

STDERR_SIZE = 256 * 1024
"""Bytes that a session process can write on its stderr before its node makes room."""

_LENGTH = struct.Struct(">I")
_DESCRIPTOR = struct.Struct("i")
_PACKET = 4096
_MOST_DESCRIPTORS = 3


class ProtocolError(Exception):
    """What came in is no message; whoever sent it is not to be trusted with another."""


def frame(message: Message) -> bytes:
    """A message as it goes over the wire."""
    body = message.SerializeToString()
    if len(body) > LONGEST_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is longer than {LONGEST_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Deframer:
    """Cuts what comes in, in pieces of any size, into the bodies of messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a message that has not come in completely."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are complete now. Raises ProtocolError."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            end = start + _LENGTH.size + _checked(_LENGTH.unpack_from(self._buffer, start)[0])
            if len(self._buffer) < end:
                break
            yield bytes(self._buffer[start + _LENGTH.size : end])
            start = end
        del self._buffer[:start]


def receive(connection: socket.socket) -> bytes | None:
    """The body of the next message of a blocking socket; None at its end. Raises ProtocolError, OSError."""
    header = _receive_exactly(connection, _LENGTH.size)
    if header is None:
        return None
    return _receive_exactly(connection, _checked(_LENGTH.unpack(header)[0]))


def _checked(length: int) -> int:
    if length > LONGEST_FRAME_BYTES:
        raise ProtocolError(f"a message of {length} bytes was announced, more than {LONGEST_FRAME_BYTES}")
    return length


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            return None
        received += piece
    return bytes(received)


@dataclass(frozen=True)
class Packet:
    """What a node and its zygote say to each other, and the descriptors that came with it."""

    kind: str
    """To the zygote: fork, ping. From it: ready, pong, forked, failed, exited."""
    values: dict[str, Any]
    descriptors: tuple[int, ...] = ()


def send_packet(connection: socket.socket, packet: Packet) -> None:
    """Send a packet. Raises BlockingIOError on a non-blocking socket that is full."""
    body = json.dumps({"kind": packet.kind, **packet.values}).encode()
    if len(body) > _PACKET:
        raise ProtocolError(f"a packet of {len(body)} bytes is longer than {_PACKET}")
    socket.send_fds(connection, [body], list(packet.descriptors))


def receive_packet(connection: socket.socket) -> Packet | None:
    """The next packet; None at the end. The descriptors in it belong to the caller."""
    # Not socket.recv_fds: it ignores its flags, and without MSG_CMSG_CLOEXEC a descriptor could slip into a program
    # that another thread executes at this moment.
    room = socket.CMSG_LEN(_MOST_DESCRIPTORS * _DESCRIPTOR.size)
    body, ancillary, _, _ = connection.recvmsg(_PACKET, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = [
        number
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _DESCRIPTOR.iter_unpack(data[: len(data) - len(data) % _DESCRIPTOR.size])
    ]
    if not body:
        return None
    values = json.loads(body)
    return Packet(values.pop("kind"), values, tuple(descriptors))


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a session's socket: the node's, which does not block, and the session process's, which does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)  # noqa: FBT003
    return ours, theirs


def limited_file() -> int:
    """A file in memory, to be a session process's stderr: what is written behind its end fails, and nobody waits."""
    descriptor = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, STDERR_SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor
