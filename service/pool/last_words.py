"""Why a process is dead, in words: its exit status, and what it wrote on stderr before."""

import os
import re
import signal

_TAIL = 600
_HINTS = {
    signal.SIGABRT: "a fault in the Go library, or an abort",
    signal.SIGALRM: "its watchdog: it had no leave to go on",
    signal.SIGKILL: "by hand, or for want of memory",
    signal.SIGSEGV: "a fault in C",
}
#: The line that says it, in a dump of Go or of Python that can have hundreds.
_TELLING = re.compile(
    r"^(?:fatal error: |panic: |Fatal Python error: |\[signal |\w*(?:Error|Exception)\b: ?).*$", re.MULTILINE
)
_CHATTER = re.compile(r"^Press Ctrl\+C to exit$\n?", re.MULTILINE)
_NUMBERS = re.compile(r"\d{6,}")


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


def last_words(stderr: int) -> str:
    """The line on stderr that says what went wrong, or else the last ones; empty if there are none."""
    text = _CHATTER.sub("", everything(stderr)).strip()
    telling = _TELLING.search(text)
    words = telling[0] if telling else " | ".join(text[-_TAIL:].splitlines())
    return _NUMBERS.sub("…", words)


def everything(stderr: int) -> str:
    """All that was written to the file in memory that is a process's stderr."""
    content = os.pread(stderr, os.fstat(stderr).st_size, 0)
    return content.rstrip(b"\0").decode(errors="replace")
