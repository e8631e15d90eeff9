"""Counts writes that the fence refuses: of an epoch that is over, by a node that did not know it yet.

None is an error. Each would have changed what another owner, or a later wish, has decided since.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from service.domain.errors import LeaseLost
from service.ports import Metrics

P = ParamSpec("P")
T = TypeVar("T")


class _Counted(Protocol):
    metrics: Metrics


Store = TypeVar("Store", bound=_Counted)


def counts_refusals(
    write: Callable[Concatenate[Store, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]:
    """Count a method's refusals under its name."""

    @functools.wraps(write)
    async def counted(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await write(self, *args, **kwargs)
        except LeaseLost as error:
            self.metrics.stale_write(write.__name__, error.reason)
            raise

    return counted
