"""Why a process is dead or stuck, in words: its exit status, its state, and what it wrote on stderr."""

import os
import re
import signal
from pathlib import Path

from service.domain.masking import cut, cut_front
from service.wire.framing import STDERR_SIZE

_TAIL_CHARACTERS = 600
_EXCERPT_CHARACTERS = 8000
_HINTS = {
    signal.SIGABRT: "a fault in the Go library, or an abort",
    signal.SIGALRM: "its watchdog: it had no leave to go on",
    signal.SIGKILL: "by hand, or for want of memory",
    signal.SIGSEGV: "a fault in C",
}
#: The lines that say it, in a dump that can have hundreds; the telling first. Go's end is an abort for the interpreter,
#: and an error may have ended a thread, long ago.
_TELLING = tuple(
    re.compile(line, re.MULTILINE)
    for line in (
        r"^(?:fatal error: |panic: ).*$",
        r"^Fatal Python error: .*$",
        r"^(?:\[signal .*|[\w.]*(?:Error|Exception)(?:: .*)?)$",
    )
)
_CHATTER = re.compile(r"^Press Ctrl\+C to exit$\n?", re.MULTILINE)
#: What faulthandler writes of a thread, and before it writes it for the watchdog.
_STACKS = re.compile(r"^(?:Timeout \(.*\)!|(?:Current t|T)hread 0x.*)\n?(?:  .*\n?)*", re.MULTILINE)
_NUMBERS = re.compile(r"\d{6,}")


_STATES = {
    "D": "waiting in the kernel for a disk or the like",
    "R": "running",
    "S": "waiting",
    "T": "stopped by a signal",
    "Z": "dead",
    "t": "held by a debugger",
}


def describe_state(pid: int) -> str:
    """What the kernel says that a process is doing."""
    try:
        # The name before it is in brackets, and can hold anything.
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][:1]
    except OSError:
        return "gone"
    return _STATES.get(state, state)


def describe_exit(status: int | None) -> str:
    """An exit status as os.waitstatus_to_exitcode gives it; None: nobody was there to hear it."""
    if status is None:
        return "ended with a status that is not known: the zygote, its parent, died before it"
    if status >= 0:
        return f"exited with status {status}"
    try:
        name: str = signal.Signals(-status).name
    except ValueError:
        return f"killed by signal {-status}"
    hint = _HINTS.get(signal.Signals(-status))
    return f"killed by {name}" + (f" ({hint})" if hint else "")


def exit_report(stderr: int) -> str:
    """The line on stderr that says what went wrong, or else the last ones; empty if there are none."""
    text = everything(stderr)
    telling = _telling(text)
    lines = cut_front(_STACKS.sub("", text).strip(), _TAIL_CHARACTERS).splitlines()
    words = cut(telling[0]) if telling else " | ".join(filter(None, lines))
    return _NUMBERS.sub("…", words)


def stderr_excerpt(stderr: int) -> str:
    """What is on stderr from the line on that says what went wrong, or else the end of it."""
    text = everything(stderr)
    telling = _telling(text)
    return cut(text[telling.start() :], _EXCERPT_CHARACTERS) if telling else cut_front(text, _EXCERPT_CHARACTERS)


def everything(stderr: int) -> str:
    """All that was written to the file in memory that is a process's stderr."""
    return _text(os.pread(stderr, os.fstat(stderr).st_size, 0))


def empty_if_half_full(stderr: int) -> str:
    """Have the next words written at its beginning, and return the last ones, if half of the room is used.

    The place of the next write is that of the open file, which the process and its node share.
    """
    if os.lseek(stderr, 0, os.SEEK_CUR) <= STDERR_SIZE // 2:
        return ""
    content = os.pread(stderr, STDERR_SIZE, 0).rstrip(b"\0")
    # In this order, and no more than was read: what is written meanwhile stays where it is.
    os.pwrite(stderr, bytes(len(content)), 0)
    os.lseek(stderr, 0, os.SEEK_SET)
    return cut_front(_text(content), _EXCERPT_CHARACTERS)


def _text(content: bytes) -> str:
    return _CHATTER.sub("", content.replace(b"\0", b"").decode(errors="replace")).strip()


def _telling(text: str) -> re.Match[str] | None:
    """The last of the most telling lines."""
    for pattern in _TELLING:
        found = list(pattern.finditer(text))
        if found:
            return found[-1]
    return None
