"""What a dead zygote leaves behind that nobody knows of."""

import asyncio
import os

_LOOK_SECONDS = 0.2


async def reap_adopted_children(zygote: int) -> None:
    """Reap the children of a dead zygote that it had forked without its node getting to know of them.

    Orphans go to the first process of their container, or to the next ancestor that adopts them. If that is this very
    process, each of them would stay a zombie for ever. They end by themselves, since their sockets are closed, and they
    have never left the zygote's group, as those do that are told to start: only they are reaped here, none of those
    that this process has started itself.
    """
    while True:
        try:
            reaped = os.waitid(os.P_PGID, zygote, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - WNOHANG
        except ChildProcessError:
            return
        if reaped is None:
            await asyncio.sleep(_LOOK_SECONDS)
