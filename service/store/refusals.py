"""Counts stale writes: those of an ended epoch, which the fence refuses.

They are no faults: each would have overwritten a decision of a newer owner, or a newer desired state.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from service.domain.errors import LeaseLost
from service.ports.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")


class _Counted(Protocol):
    metrics: Metrics


Store = TypeVar("Store", bound=_Counted)


def counts_refusals(
    operation: str,
) -> Callable[
    [Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]], Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]
]:
    """Wrap a method so that its stale writes are counted. `operation` is a label of the metric, which operators use."""

    def wrap(
        write: Callable[Concatenate[Store, P], Coroutine[Any, Any, T]],
    ) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]:
        @functools.wraps(write)
        async def counted(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await write(self, *args, **kwargs)
            except LeaseLost as error:
                self.metrics.stale_write(operation, error.reason)
                raise

        return counted

    return wrap
