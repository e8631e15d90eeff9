"""Derives time limits from the deadlines of calls."""

from service.api.grpc.context import Context


def remaining_time(context: Context, longest: float) -> float:
    """Return the seconds for the work of a call: at most `longest`, and 10 % less than its deadline leaves."""
    # The value is None without a deadline, which the stub does not declare.
    left: float | None = context.time_remaining()
    return longest if left is None else max(0.0, min(longest, left * 0.9))
