"""The watchdog of a session process, in processes of its own that do what it must not be stopped by."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROLOGUE = """
import ctypes, os, signal, sys, time
from service.whatsapp.watchdog import NotPermitted, Watchdog

def after(seconds):
    return time.monotonic_ns() + int(seconds * 1e9)

watchdog = Watchdog(2)
"""

Run = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs a script that has a watchdog; what it writes can be read."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", PROLOGUE + textwrap.dedent(script)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_process_that_holds_the_interpreter_is_killed(run: Run) -> None:
    process = run("""
        watchdog.arm(after(0.8))
        ctypes.PyDLL(None).sleep(60)  # PyDLL: with the interpreter's lock held
    """)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGALRM
    # The dump of faulthandler says where it was.
    assert b"<string>" in stderr


def test_a_process_that_was_stopped_past_its_deadline_executes_nothing_more(run: Run) -> None:
    process = run("""
        watchdog.arm(after(0.5))
        print("armed")
        while True:
            os.write(1, b".")
            time.sleep(0.01)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == b"armed\n"
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    before = _available(process)
    _until(time.monotonic() + 0.8)
    os.kill(process.pid, signal.SIGCONT)
    process.wait(timeout=5)
    assert process.returncode in {-signal.SIGALRM, -signal.SIGKILL}
    assert _available(process) == before


def test_a_process_that_was_stopped_while_it_armed_does_not_get_the_time_again(run: Run) -> None:
    process = run("""
        class StoppedAfterTheClock:
            calls = 0
            def __call__(self):
                StoppedAfterTheClock.calls += 1
                return 0 if StoppedAfterTheClock.calls <= 2 else 10**18
        import service.whatsapp.watchdog as module
        module.time = type("time", (), {"monotonic_ns": StoppedAfterTheClock()})
        watchdog.arm(60 * 10**9)
        print("alive")
    """)
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    assert stdout == b""


@pytest.mark.parametrize("permit", ["0", "after(-1)"])
def test_without_a_permit_it_does_not_begin(run: Run, permit: str) -> None:
    process = run(f"""
        try:
            watchdog.arm({permit})
        except NotPermitted:
            print("refused")
    """)
    assert process.communicate(timeout=10)[0] == b"refused\n"
    assert process.returncode == 0


def test_permits_prolong_and_an_earlier_one_changes_nothing(run: Run) -> None:
    process = run("""
        watchdog.arm(after(0.3))
        watchdog.permit(after(1.2))
        watchdog.permit(after(0.1))
        began = time.monotonic()
        while True:
            print(round(time.monotonic() - began, 1))
            time.sleep(0.05)
    """)
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGALRM
    assert 1.0 <= float(stdout.split()[-1]) <= 1.3


def test_a_handler_that_somebody_set_does_not_save_it(run: Run) -> None:
    process = run("""
        signal.signal(signal.SIGALRM, lambda *_: print("handled"))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        watchdog.arm(after(0.3))
        time.sleep(30)
    """)
    assert process.communicate(timeout=10)[0] == b""
    assert process.returncode == -signal.SIGALRM


def test_a_dump_that_nobody_reads_does_not_delay_the_end(run: Run) -> None:
    process = run("""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        while True:
            try:
                os.write(writing, bytes(4096))
            except BlockingIOError:
                break
        watchdog._dump_to = writing
        watchdog.arm(after(0.6))
        time.sleep(30)
    """)
    began = time.monotonic()
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGALRM
    assert time.monotonic() - began < 3


def _available(process: "subprocess.Popen[bytes]") -> int:
    """How much lies unread in its output."""
    assert process.stdout is not None
    count = array.array("i", [0])
    fcntl.ioctl(process.stdout, termios.FIONREAD, count)
    return count[0]


def _until(moment: float) -> None:
    """A deadline that has to pass is a condition that nothing but the clock brings about."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)
