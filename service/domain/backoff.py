"""Compute the wait before the next start of a session process."""

FIRST = 1.0
CAP = 60.0
STEADY = 30.0
"""Seconds connected after which the count of failures is reset. With fewer, a crash loop would never slow down."""


def backoff(failures: int, jitter: float, longest: float = CAP) -> float:
    """Return the seconds to wait after so many failures in a row. `jitter`: a random number from 0 to 1.

    The first wait is at most 0.1 s: most failures are a crash, and the session must be back in 2 s. Then the wait
    doubles up to `longest`, less up to half of it by the jitter, so that sessions that failed together do not
    reconnect together.
    """
    if failures <= 1:
        return 0.1 * jitter
    # The exponent is bounded so that the power stays small.
    wait: float = min(longest, FIRST * 2 ** min(failures - 2, 10))
    return wait * (1 - 0.5 * jitter)
