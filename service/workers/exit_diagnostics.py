"""Describes why a process is dead or stuck: from its exit status, its state and its stderr."""

import os
import re
import signal
from pathlib import Path

from service.domain.masking import cut, cut_front
from service.wire.framing import STDERR_SIZE

_TAIL_CHARACTERS = 600
_EXCERPT_CHARACTERS = 8000
_SIGNAL_HINTS = {
    signal.SIGABRT: "a fault in the Go library, or an abort",
    signal.SIGALRM: "its watchdog: it had no run permit",
    signal.SIGKILL: "by hand, or for want of memory",
    signal.SIGSEGV: "a fault in C",
}
#: The lines of a dump that name the cause, the most specific first: the interpreter sees Go's end as an abort, and an
#: exception may have ended a thread long before.
_CAUSE_PATTERNS = tuple(
    re.compile(line, re.MULTILINE)
    for line in (
        r"^(?:fatal error: |panic: ).*$",
        r"^Fatal Python error: .*$",
        r"^(?:\[signal .*|[\w.]*(?:Error|Exception)(?:: .*)?)$",
    )
)
_NOISE = re.compile(r"^Press Ctrl\+C to exit$\n?", re.MULTILINE)
#: faulthandler's stack of a thread, and its line before the stacks of a timeout.
_STACKS = re.compile(r"^(?:Timeout \(.*\)!|(?:Current t|T)hread 0x.*)\n?(?:  .*\n?)*", re.MULTILINE)
_LONG_NUMBER = re.compile(r"\d{6,}")


_STATES = {
    "D": "waiting in the kernel for a disk or the like",
    "R": "running",
    "S": "waiting",
    "T": "stopped by a signal",
    "Z": "dead",
    "t": "held by a debugger",
}


def describe_state(pid: int) -> str:
    """Return the state of a process according to the kernel."""
    try:
        # The name before the state is in brackets, and can contain anything.
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][:1]
    except OSError:
        return "gone"
    return _STATES.get(state, state)


def describe_exit(status: int | None) -> str:
    """Describe an exit status in the form of os.waitstatus_to_exitcode; None means unknown."""
    if status is None:
        return "ended with a status that is not known: the zygote, its parent, died before it"
    if status >= 0:
        return f"exited with status {status}"
    try:
        name: str = signal.Signals(-status).name
    except ValueError:
        return f"killed by signal {-status}"
    hint = _SIGNAL_HINTS.get(signal.Signals(-status))
    return f"killed by {name}" + (f" ({hint})" if hint else "")


def exit_report(stderr: int) -> str:
    """Return the line on stderr that names the cause, or else the last lines; empty if there are none."""
    text = read_stderr(stderr)
    cause = _find_cause(text)
    lines = cut_front(_STACKS.sub("", text).strip(), _TAIL_CHARACTERS).splitlines()
    line = cut(cause[0]) if cause else " | ".join(filter(None, lines))
    return _LONG_NUMBER.sub("…", line)


def stderr_excerpt(stderr: int) -> str:
    """Return stderr from the line on that names the cause, or else its end."""
    text = read_stderr(stderr)
    cause = _find_cause(text)
    return cut(text[cause.start() :], _EXCERPT_CHARACTERS) if cause else cut_front(text, _EXCERPT_CHARACTERS)


def read_stderr(stderr: int) -> str:
    """Return the text in the memory file that is a process's stderr."""
    return _decode(os.pread(stderr, os.fstat(stderr).st_size, 0))


def empty_if_half_full(stderr: int) -> str:
    """Empty stderr and return the end of its text, if more than half of it is used; else return nothing.

    The process and its node share the file offset, so the next write goes to the beginning.
    """
    if os.lseek(stderr, 0, os.SEEK_CUR) <= STDERR_SIZE // 2:
        return ""
    content = os.pread(stderr, STDERR_SIZE, 0).rstrip(b"\0")
    # In this order, and only what was read, so that concurrent writes survive.
    os.pwrite(stderr, bytes(len(content)), 0)
    os.lseek(stderr, 0, os.SEEK_SET)
    return cut_front(_decode(content), _EXCERPT_CHARACTERS)


def _decode(content: bytes) -> str:
    return _NOISE.sub("", content.replace(b"\0", b"").decode(errors="replace")).strip()


def _find_cause(text: str) -> re.Match[str] | None:
    """Return the last match of the most specific pattern that matches."""
    for pattern in _CAUSE_PATTERNS:
        found = list(pattern.finditer(text))
        if found:
            return found[-1]
    return None
