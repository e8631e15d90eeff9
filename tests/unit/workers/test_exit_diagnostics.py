import os
from collections.abc import Callable, Iterator

import pytest

from service.domain.masking import CUT
from service.workers.exit_diagnostics import describe_exit, describe_state, exit_report, stderr_excerpt
from service.workers.zygote import environment_for

STACKS = """Timeout (0:00:01)!
Thread 0x7f (most recent call first):
  File "service/worker/session/session.py", line 1 in _obey
  ...

Current thread 0x7e (most recent call first):
  File "service/wire/framing.py", line 1 in receive
"""


@pytest.fixture
def stderr() -> Iterator[Callable[[str], int]]:
    descriptors: list[int] = []

    def holding(text: str) -> int:
        descriptors.append(os.memfd_create("stderr"))
        os.ftruncate(descriptors[-1], 10_000)
        os.pwrite(descriptors[-1], text.encode(), 0)
        return descriptors[-1]

    yield holding
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("Press Ctrl+C to exit\n", ""),
        (
            "fatal error: concurrent map writes\n\ngoroutine 1 [running]:\n" + "x\n" * 900,
            "fatal error: concurrent map writes",
        ),
        ("noise\npanic: runtime error: index out of range\n\ngoroutine", "panic: runtime error: index out of range"),
        (
            "fatal error: unlock of unlocked mutex\n\ngoroutine 1\nFatal Python error: Aborted\n\nThread 0x1\n",
            "fatal error: unlock of unlocked mutex",
        ),
        (
            "Exception in thread call-7:\nValueError: long ago\nTimeout (0:00:01)!\nFatal Python error: Aborted\n",
            "Fatal Python error: Aborted",
        ),
        ("ValueError: long ago\nTraceback\nMemoryError\n", "MemoryError"),
        ("[signal SIGSEGV: segmentation violation code=0x1]\n", "[signal SIGSEGV: segmentation violation code=0x1]"),
        ("Traceback\n  File\nLoaderError: no place\n", "LoaderError: no place"),
        ("one\ntwo\n", "one | two"),
        (f"one\n{STACKS}two\n", "one | two"),
        ("call of 491700000001\n", "call of …"),
    ],
)
def test_the_telling_line_is_found(stderr: Callable[[str], int], text: str, words: str) -> None:
    assert exit_report(stderr(text)) == words


def test_an_excerpt_begins_where_it_is_told_and_is_limited(stderr: Callable[[str], int]) -> None:
    text = "noise\n" * 500 + "panic: nil map\n" + "goroutine\n" * 500
    assert stderr_excerpt(stderr(text)).startswith("panic: nil map\ngoroutine\n")
    assert stderr_excerpt(stderr("x" * 9_000 + "\nend")) == f"{CUT}\nend"
    assert stderr_excerpt(stderr("hunter2secret " * 700)).startswith(f"{CUT}\nhunter2secret ")
    words = exit_report(stderr("panic: " + "hunter2secret " * 700))
    assert words.startswith("panic: ")
    assert words.endswith(f"hunter2secret{CUT}")
    assert 7_900 < len(stderr_excerpt(stderr("x " * 4_995))) <= 8_000


def test_the_state_of_a_process_is_told_in_words() -> None:
    assert describe_state(os.getpid()) == "running"
    assert describe_state(2**22 + 1) == "gone"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (-9, "killed by SIGKILL (by hand, or for want of memory)"),
        (-14, "killed by SIGALRM (its watchdog: it had no run permit)"),
        (-15, "killed by SIGTERM"),
        (-64, "killed by SIGRTMAX"),
        (None, "ended with a status that is not known: the zygote, its parent, died before it"),
    ],
)
def test_an_exit_status_is_told_in_words(status: int | None, words: str) -> None:
    assert describe_exit(status) == words


def test_no_secret_is_in_the_environment_of_the_zygote() -> None:
    base = {
        "PATH": "/bin",
        "SSL_CERT_FILE": "/ca.pem",
        "https_proxy": "http://proxy",
        "DATABASE_URL": "secret",
        "REDIS_URL": "secret",
        "ZAP_WHATSAPP_DATABASE_URL": "secret",
        "ZAP_WHATSAPP_PROXY_URL": "secret",
        "ZAP_OF_A_PRELOAD": "kept",
        "ZAP_NODE_SECRET": "secret",
        "ZAP_AUTH_TOKEN": "secret",
        "SIMULATOR_URL": "ws://127.0.0.1:1",
    }
    environment = environment_for(base)
    assert "secret" not in environment.values()
    assert environment["SPHINX"] == "1"
    assert environment.items() >= {
        (key, base[key]) for key in ("PATH", "SSL_CERT_FILE", "https_proxy", "SIMULATOR_URL", "ZAP_OF_A_PRELOAD")
    }
