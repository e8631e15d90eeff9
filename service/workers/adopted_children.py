"""Reaps children of a dead zygote that this process has adopted."""

import asyncio
import os

_CHECK_INTERVAL_S = 0.2


async def reap_adopted_children(zygote: int) -> None:
    """Reap the children that a dead zygote forked without reporting them to its node.

    The kernel gives them to the first process of the container, or to the next ancestor that adopts children. If that
    is this process, each child would stay a zombie. They exit by themselves, because their sockets are closed. They are
    still in the zygote's process group, which a child leaves when it gets its start command; no other children are
    reaped here.
    """
    while True:
        try:
            reaped = os.waitid(os.P_PGID, zygote, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - WNOHANG
        except ChildProcessError:
            return
        if reaped is None:
            await asyncio.sleep(_CHECK_INTERVAL_S)
