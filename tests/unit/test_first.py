"""The first process of a container: what it starts is a stand-in for the node, everything else is real."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service import config, first

NODE_IS_KILLED = """
import os, signal, subprocess, sys
# As session processes do, one outlives the node, of which it is a grandchild.
subprocess.Popen(["/bin/sh", "-c", "( sleep {seconds}; echo written > '{file}' ) &"]).wait()
os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS_FOR_SIGTERM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("ready", flush=True)
signal.pause()
"""
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Start the first process of a container whose node does what it is given."""

    def begin(node: str, **environment: str) -> "subprocess.Popen[str]":
        (tmp_path / "service").mkdir()
        (tmp_path / "service" / "__init__.py").touch()
        (tmp_path / "service" / "__main__.py").write_text(node)
        return subprocess.Popen(
            [sys.executable, first.__file__, "serve"],
            env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )

    return begin


def test_it_passes_on_what_it_was_told_and_how_the_node_ended(begin: Begin) -> None:
    process = begin("import sys; print(sys.argv[1:]); sys.exit(78)")
    assert process.communicate(timeout=10)[0] == "['serve']\n"
    assert process.returncode == 78


def test_it_stays_for_what_a_killed_node_leaves(begin: Begin, tmp_path: Path) -> None:
    process = begin(NODE_IS_KILLED.format(seconds=1, file=tmp_path / "left"))
    assert process.wait(timeout=10) == 128 + signal.SIGKILL
    assert (tmp_path / "left").read_text() == "written\n"


def test_it_does_not_stay_for_longer_than_a_lease(begin: Begin, tmp_path: Path) -> None:
    process = begin(NODE_IS_KILLED.format(seconds=30, file=tmp_path / "left"), ZAP_LEASE_TTL="0.5")
    assert process.wait(timeout=10) == 128 + signal.SIGKILL
    assert not (tmp_path / "left").exists()


def test_a_signal_reaches_the_node(begin: Begin) -> None:
    process = begin(WAITS_FOR_SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=10) == 3


def test_whoever_asks_it_to_end_while_it_stays_need_not_wait(begin: Begin, tmp_path: Path) -> None:
    process = begin(NODE_IS_KILLED.format(seconds=30, file=tmp_path / "left"))
    node_is_gone = time.monotonic() + 10
    while [child.name() for child in psutil.Process(process.pid).children()] != ["sh"]:
        assert time.monotonic() < node_is_gone
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=5) == 128 + signal.SIGKILL


#: Both have it, since what reads settings would cost each container 30 MiB more.
TTL = config.Settings.model_fields["lease_ttl"].default


@pytest.mark.parametrize(("ttl", "seconds"), [("", TTL + 1.0), ("5", 6.0), ("soon", 0.0)])
def test_how_long_it_stays(monkeypatch: pytest.MonkeyPatch, ttl: str, seconds: float) -> None:
    monkeypatch.setenv("ZAP_LEASE_TTL", ttl)
    assert first.longest() == seconds
