import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire import framing
from zap.worker.v1 import frames_pb2


def command(number: int) -> frames_pb2.Command:
    return frames_pb2.Command(confirm=frames_pb2.Confirm(number=number))


@given(numbers=st.lists(st.integers(1, 2**40), max_size=20), sizes=st.lists(st.integers(1, 30), min_size=1))
def test_messages_come_out_whole_whatever_pieces_they_come_in(numbers: list[int], sizes: list[int]) -> None:
    stream = b"".join(framing.frame(command(number)) for number in numbers)
    deframer, bodies, at, turn = framing.Deframer(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        bodies += list(deframer.feed(stream[at : at + size]))
        at, turn = at + size, turn + 1
    assert [frames_pb2.Command.FromString(body).confirm.number for body in bodies] == numbers
    assert deframer.pending == 0


def test_a_message_without_content_is_a_message() -> None:
    assert list(framing.Deframer().feed(framing.frame(frames_pb2.Command()))) == [b""]


def test_a_length_beyond_the_longest_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(framing.ProtocolError):
        list(framing.Deframer().feed((framing.LONGEST_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_a_message_beyond_the_longest_is_not_sent() -> None:
    frame = frames_pb2.Frame()
    frame.event.message_received.raw = bytes(framing.LONGEST_FRAME_BYTES + 1)
    with pytest.raises(framing.ProtocolError):
        framing.frame(frame)


def test_a_blocking_socket_gives_messages_and_then_none() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        big = frames_pb2.Frame()
        big.event.message_received.raw = os.urandom(3_000_000)

        def write() -> None:
            ours.sendall(framing.frame(big))
            ours.close()

        writer = threading.Thread(target=write)
        writer.start()
        assert framing.receive(theirs) == big.SerializeToString()
        assert framing.receive(theirs) is None
        writer.join()


def test_an_end_in_the_middle_of_a_message_is_an_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(framing.frame(command(7))[:-1])
        ours.close()
        assert framing.receive(theirs) is None


def test_a_file_comes_with_its_own_message() -> None:
    ours, theirs = framing.socket_pair()
    reading, writing = os.pipe()
    with ours, theirs:
        ours.sendall(framing.frame(command(1)))
        data = framing.frame(command(2))
        assert framing.send_with_file(ours, data, writing) == len(data)
        ours.sendall(framing.frame(command(3)))
        os.close(writing)
        files = []
        for number in (1, 2, 3):
            received = framing.receive_with_file(theirs)
            assert received is not None
            assert frames_pb2.Command.FromString(received[0]).confirm.number == number
            files.append(received[1])
        first, file, last = files
        assert first is None
        assert last is None
        assert file is not None
        assert not os.get_inheritable(file.fileno())
        file.close()
        # It was the last descriptor of the pipe's end.
        assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_message_with_two_files_is_refused() -> None:
    ours, theirs = framing.socket_pair()
    reading, writing = os.pipe()
    with ours, theirs:
        socket.send_fds(ours, [framing.frame(command(1))], [reading, writing])
        with pytest.raises(framing.ProtocolError, match="2 files"):
            framing.receive(theirs)
    os.close(writing)
    # Those that came were closed.
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_packets_carry_descriptors() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    with ours, theirs:
        framing.send_packet(ours, framing.Packet("fork", {"id": 3}, (writing,)))
        packet = framing.receive_packet(theirs)
        assert packet is not None
        assert (packet.kind, packet.values) == ("fork", {"id": 3})
        os.write(packet.descriptors[0], b"through")
        assert os.read(reading, 10) == b"through"
        assert not os.get_inheritable(packet.descriptors[0])
        for descriptor in (reading, writing, *packet.descriptors):
            os.close(descriptor)
        ours.close()
        assert framing.receive_packet(theirs) is None
