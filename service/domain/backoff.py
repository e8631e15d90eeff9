"""How long to wait before the next attempt."""

FIRST = 1.0
CAP = 60.0
STEADY = 30.0
"""Seconds of being connected after which earlier failures are forgotten, or connecting and dying were a tight loop."""


def backoff(failures: int, jitter: float, longest: float = CAP) -> float:
    """Seconds to wait after so many failures in a row; `jitter` is a random number from 0 to 1.

    The first failure costs at most 0.1 s: most are a process that died, and its session is to be back in 2 s. From
    then on the wait doubles up to `longest`, and the jitter takes up to half of it off, so that sessions that fell
    together do not come back together.
    """
    if failures <= 1:
        return 0.1 * jitter
    # 2**k would grow without bound long before anybody looks.
    wait: float = min(longest, FIRST * 2 ** min(failures - 2, 10))
    return wait * (1 - 0.5 * jitter)
