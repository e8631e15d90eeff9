"""A name that the kernel frees when its last holder is gone."""

import os
import socket
import uuid
from pathlib import Path

import pytest

from service.wire import liveness
from service.wire.liveness import LivenessSocket, is_held


def test_a_name_is_held_until_its_last_descriptor_is_closed() -> None:
    node = LivenessSocket(uuid.uuid4())
    inherited = os.dup(node.fileno)
    assert is_held(node.incarnation)
    node.close()
    assert is_held(node.incarnation)
    os.close(inherited)
    assert not is_held(node.incarnation)
    # The question itself holds nothing.
    assert not is_held(node.incarnation)


def test_a_name_is_that_of_one_incarnation() -> None:
    node = LivenessSocket(uuid.uuid4())
    assert not is_held(uuid.uuid4())
    with pytest.raises(OSError, match="in use"):
        LivenessSocket(node.incarnation)
    assert is_held(node.incarnation)
    node.close()


def test_programs_that_are_executed_do_not_inherit_it() -> None:
    node = LivenessSocket(uuid.uuid4())
    assert not os.get_inheritable(node.fileno)
    os.set_inheritable(node.fileno, True)
    liveness.inherit(node.fileno)
    assert not os.get_inheritable(node.fileno)
    assert is_held(node.incarnation), "checking it closed nothing"
    node.close()


def test_what_cannot_be_asked_counts_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError("too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    assert is_held(uuid.uuid4())


def test_a_scope_is_this_boot_and_this_network_namespace() -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/net").stat()
    assert liveness.scope() == f"{boot_id}/{namespace.st_dev}:{namespace.st_ino}"


@pytest.mark.parametrize("what", ["_BOOT_ID", "_NETWORK_NAMESPACE"])
def test_there_is_no_scope_where_the_kernel_does_not_say_it(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(liveness, what, tmp_path / "absent")
    assert liveness.scope() is None


def test_an_empty_boot_id_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setattr(liveness, "_BOOT_ID", tmp_path / "empty")
    assert liveness.scope() is None


def test_what_is_no_liveness_socket_is_refused() -> None:
    unnamed, other = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    with unnamed, other, listener:
        for wrong in (unnamed, listener):
            with pytest.raises(ValueError, match="not the liveness socket"):
                liveness.inherit(wrong.fileno())
