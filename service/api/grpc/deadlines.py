"""How long the core may take for a call."""

from service.api.grpc.context import Context


def remaining_time(context: Context, longest: float) -> float:
    """Seconds for the work of a call: what its deadline leaves, less what the answer needs to be back before it."""
    # None if the caller set no deadline, which the stub does not know.
    left: float | None = context.time_remaining()
    return longest if left is None else max(0.0, min(longest, left * 0.9))
