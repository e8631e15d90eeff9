"""Frames and packets between a node, its zygote and its session processes.

- Between a node and a session process: a stream of protobuf messages (`zap.worker.v1`), each after its length in four
  bytes, big endian. The node sends `Command`, the process sends `Frame`. A file may be attached to the first byte of a
  command.
- Between a node and its zygote: packets (`SOCK_SEQPACKET`) of JSON, with file descriptors attached. They contain no
  secrets.
"""

import fcntl
import io
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

LONGEST_FRAME_BYTES = 16 * 1024 * 1024
"""Bytes of the longest message. Those of WhatsApp are below 1 MiB, so a longer one is a fault."""
LONGEST_WITHOUT_EVENT = 64 * 1024
"""Bytes of the longest frame without an event or a reply, such as a log line or a code."""
LONGEST_REPLY_BYTES = 4 * 1024 * 1024
"""Bytes of the longest reply to a call. Clients of gRPC accept no longer message, unless they are configured to."""

MOST_CALLS = 64
"""Calls to WhatsApp in flight in a session process. The process refuses more, so its node queues them."""

STDERR_SIZE = 256 * 1024
"""Bytes that a session process can write on stderr before its node empties it."""

_LENGTH = struct.Struct(">I")
_DESCRIPTOR = struct.Struct("i")
_MAX_PACKET_BYTES = 4096
_MAX_DESCRIPTORS = 3


class ProtocolError(Exception):
    """The received bytes are no valid message; the connection must be closed."""


def frame(message: Message) -> bytes:
    """Return a message with its length prefix. Raise ProtocolError if it is too long."""
    body = message.SerializeToString()
    if len(body) > LONGEST_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is longer than {LONGEST_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Deframer:
    """Splits a stream, fed in chunks of any size, into the bodies of messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of the incomplete message at the end of the stream."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are complete now. Raise ProtocolError."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            end = start + _LENGTH.size + _check_length(_LENGTH.unpack_from(self._buffer, start)[0])
            if len(self._buffer) < end:
                break
            yield bytes(self._buffer[start + _LENGTH.size : end])
            start = end
        del self._buffer[:start]


def receive(connection: socket.socket) -> bytes | None:
    """Read a message's body from a blocking socket; return None at its end. Raise ProtocolError or OSError."""
    received = receive_with_file(connection)
    return None if received is None else received[0]


def receive_with_file(connection: socket.socket) -> tuple[bytes, io.FileIO | None] | None:
    """Read a message's body from a blocking socket, and the file attached to it. Return None at the end of the stream.

    The caller closes the file; it also closes when it is dropped. Raise ProtocolError or OSError.
    """
    # Not socket.recv_fds, as below. The kernel hands descriptors over with the first byte that they are attached to.
    space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR.size)
    begin, ancillary, _, _ = connection.recvmsg(_LENGTH.size, space, socket.MSG_CMSG_CLOEXEC)
    files = [io.FileIO(descriptor) for descriptor in _descriptors(ancillary)]
    rest = _receive_exactly(connection, _LENGTH.size - len(begin)) if begin else None
    if rest is None:
        return None
    if len(files) > 1:
        raise ProtocolError(f"{len(files)} files are attached to a message, more than one")
    body = _receive_exactly(connection, _check_length(_LENGTH.unpack(begin + rest)[0]))
    return None if body is None else (body, files[0] if files else None)


def send_with_file(connection: socket.socket, data: bytes, descriptor: int) -> int:
    """Send the begin of a framed message with a file attached, and return how many bytes of it were taken.

    Raise BlockingIOError if a non-blocking socket is full; then nothing was sent.
    """
    return socket.send_fds(connection, [data], [descriptor])


def _check_length(length: int) -> int:
    if length > LONGEST_FRAME_BYTES:
        raise ProtocolError(f"a message of {length} bytes was announced, more than {LONGEST_FRAME_BYTES}")
    return length


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            return None
        received += data
    return bytes(received)


@dataclass(frozen=True)
class Packet:
    """A packet between a node and its zygote, and the descriptors attached to it."""

    kind: str
    """To the zygote: fork, ping. From it: ready, pong, forked, failed, exited."""
    values: dict[str, Any]
    descriptors: tuple[int, ...] = ()


def send_packet(connection: socket.socket, packet: Packet) -> None:
    """Send a packet. Raise BlockingIOError if a non-blocking socket is full."""
    body = json.dumps({"kind": packet.kind, **packet.values}).encode()
    if len(body) > _MAX_PACKET_BYTES:
        raise ProtocolError(f"a packet of {len(body)} bytes is longer than {_MAX_PACKET_BYTES}")
    socket.send_fds(connection, [body], list(packet.descriptors))


def receive_packet(connection: socket.socket) -> Packet | None:
    """Receive a packet; return None at the end. The caller must close its descriptors."""
    # Not socket.recv_fds, which ignores its flags: without MSG_CMSG_CLOEXEC, a program that another thread executes now
    # could inherit a descriptor.
    space = socket.CMSG_LEN(_MAX_DESCRIPTORS * _DESCRIPTOR.size)
    body, ancillary, _, _ = connection.recvmsg(_MAX_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = tuple(_descriptors(ancillary))
    if not body:
        return None
    values = json.loads(body)
    return Packet(values.pop("kind"), values, descriptors)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            yield from (
                number for (number,) in _DESCRIPTOR.iter_unpack(data[: len(data) - len(data) % _DESCRIPTOR.size])
            )


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return the node's end (non-blocking) and the session process's end (blocking) of a new socket."""
    node_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    node_end.setblocking(False)  # noqa: FBT003
    return node_end, child_end


def limited_file() -> int:
    """Return a memory file of fixed size for stderr: a write beyond its end fails instead of blocking."""
    descriptor = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, STDERR_SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor
