"""Server processes: start one so that it outlives us, recognise one that did, end one in order."""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dev.account import Account, environment

PR_SET_PDEATHSIG = 1
POLL = 0.01
Result = TypeVar("Result")


@dataclass(frozen=True)
class Marks:
    """What a server of ours is recognised by: the program it runs and one exact argument, the path of its files.

    The command line is all that any process may read of another one: a container's root lacks the right
    to look into the processes of another account, and a process number alone may have been given to somebody else.
    """

    program: str
    argument: str

    def fit(self, pid: int) -> bool:
        """Whether the process is alive and this server; one that has ended but was not awaited has no command line."""
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self.argument) in arguments and Path(os.fsdecode(arguments[0])).name == self.program


def launch(
    command: list[str], *, account: Account, directory: Path, log: Path, die_with_starter: bool
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, its output in a file: ^C in our terminal is ours to act on, not its."""
    with log.open("wb") as output:
        account.take(log)
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent() if die_with_starter else None,  # noqa: PLW1509 - one C call, nothing that locks
            user=account.switch_user,
            group=account.switch_group,
            extra_groups=account.switch_extra_groups,
        )


def _end_with_parent() -> Callable[[], None]:
    """Prepare the call by which a child asks to be ended with us; made last, as a change of user undoes it."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        # A shell's background job has it ignored, and what is ignored stays so across an exec.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)

    return ask


async def end(pid: int, marks: Marks, steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn and wait its seconds, until the process is gone; the last resort is SIGKILL."""
    for number, seconds in (*steps, (signal.SIGKILL, 5.0)):
        if not marks.fit(pid):
            return
        os.kill(pid, number)
        if await until(lambda: not marks.fit(pid), seconds):
            return


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds, and return whether it came to hold in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(POLL)
    return True


async def in_thread(function: Callable[[], Result]) -> Result:
    """Run what blocks in a thread; even when cancelled, return only after it has ended, since files are its own."""
    task = asyncio.create_task(asyncio.to_thread(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def choose_port(wanted: int | None) -> int:
    """Return the wanted port of the loopback interface if nobody has it, otherwise a free one."""
    for port in (wanted, 0) if wanted else (0,):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(candidate.getsockname()[1])
    raise OSError("the loopback interface has no free port")


def end_of(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log, to be shown in an error."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"
