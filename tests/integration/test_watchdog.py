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
from service.worker.process.watchdog import NotPermitted, Watchdog

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
        import service.worker.process.watchdog as module
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


FULL_PIPE = """
    reading, full = os.pipe()
    os.set_blocking(full, False)
    while True:
        try:
            os.write(full, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(full, {blocking})
"""
FULL_MEMORY = """
    from service.wire import framing
    full = framing.limited_file()
    os.write(full, bytes(framing.STDERR_SIZE))
    try:
        os.write(full, b"x")
    except OSError:
        pass
    else:
        sys.exit("it can grow")
"""


@pytest.mark.parametrize(
    "fill",
    [FULL_PIPE.format(blocking=True), FULL_PIPE.format(blocking=False), FULL_MEMORY],
    ids=["a pipe that blocks", "a pipe that does not block", "the file in memory of the product"],
)
@pytest.mark.parametrize(
    "busy", ["time.sleep(30)", "ctypes.PyDLL(None).sleep(30)", "os.write(full, bytes(10))\ntime.sleep(30)"]
)
def test_a_dump_that_finds_no_room_does_not_delay_the_end(run: Run, fill: str, busy: str) -> None:
    process = run(f"""{textwrap.dedent(fill)}
watchdog._dump_to = full
watchdog.arm(after(0.6))
print(time.monotonic(), flush=True)
try:
    {busy.partition(chr(10))[0]}
except OSError:
    pass
{busy.partition(chr(10))[2]}
""")
    stdout, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGALRM
    assert time.monotonic() - float(stdout) < 10


def test_a_process_has_a_timer_before_it_has_a_watchdog(run: Run) -> None:
    process = run("""
        import service.worker.process.watchdog as module
        module._UNARMED_SECONDS = 0.3
        module.limit_the_wait()
        ctypes.PyDLL(None).sleep(60)
    """)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGALRM


def test_the_first_permit_takes_the_place_of_the_first_timer(run: Run) -> None:
    process = run("""
        import service.worker.process.watchdog as module
        module._UNARMED_SECONDS = 0.5
        module.limit_the_wait()
        watchdog.arm(after(20))
        time.sleep(1)
        print(round(signal.getitimer(signal.ITIMER_REAL)[0]))
    """)
    assert process.communicate(timeout=20)[0] == b"19\n"
    assert process.returncode == 0


ROUNDS = 20


def test_none_of_many_that_were_stopped_past_their_deadlines_executes_anything_more(run: Run) -> None:
    # Each counts in memory that all share; the deadline of each comes while it is stopped.
    process = run(f"""
        import mmap
        counters = mmap.mmap(-1, 8 * {ROUNDS})
        counted = memoryview(counters).cast("Q")

        def count(number):
            watchdog.arm(after(3))
            while True:
                counted[number] += 1
                time.sleep(0.001)

        children = []
        for number in range({ROUNDS}):
            children.append(os.fork())
            if not children[-1]:
                count(number)
        while not all(counted):
            time.sleep(0.01)
        for child in children:
            os.kill(child, signal.SIGSTOP)
            os.waitpid(child, os.WUNTRACED)
        before = list(counted)
        time.sleep(3.2)
        for child in children:
            os.kill(child, signal.SIGCONT)
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(set(ends), list(counted) == before)
    """)
    stdout, stderr = process.communicate(timeout=60)
    assert stdout.decode() == "{-14} True\n", stderr.decode()


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
