"""Compute the wait before the next start of a session process."""

BASE_WAIT_S = 1.0
"""Seconds of the wait after the second failure in a row, before the jitter."""
LONGEST_WAIT_S = 60.0
STEADY_S = 30.0
"""Seconds connected after which the count of failures is reset. With fewer, a crash loop would never slow down."""


def backoff(failures: int, jitter: float, longest: float = LONGEST_WAIT_S) -> float:
    """Return the seconds to wait after so many failures in a row. `jitter`: a random number from 0 to 1.

    The first wait is at most 0.1 s: most failures are a crash, and the session must be back in 2 s. Then the wait
    doubles up to `longest`, less up to half of it by the jitter, so that sessions that failed together do not
    reconnect together.
    """
    if failures <= 1:
        return 0.1 * jitter
    # The exponent is bounded so that the power stays small.
    wait: float = min(longest, BASE_WAIT_S * 2 ** min(failures - 2, 10))
    return wait * (1 - 0.5 * jitter)
