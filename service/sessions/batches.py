"""Takes what is there, at least one, at most so many: what came in together is written together."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def batches(
    items: AsyncIterator[Item], limit: int, weight: Callable[[Item], int] = lambda _: 0, full: int = 1
) -> AsyncGenerator[Sequence[Item], None]:
    """The items in order, in lists of 1 to `limit`; reads ahead by as much, then lets the source wait.

    A list ends with the item by which it weighs `full` or more.
    """
    queue: asyncio.Queue[Item | None] = asyncio.Queue(maxsize=limit)

    async def read() -> None:
        try:
            async for item in items:
                await queue.put(item)
        except Exception:
            await queue.put(None)
            raise
        # Not when it is cancelled: nobody takes anything any more, and a full queue would keep it for ever.
        await queue.put(None)

    reader = asyncio.create_task(read())
    try:
        while (first := await queue.get()) is not None:
            batch, weighs = [first], weight(first)
            while len(batch) < limit and weighs < full and not queue.empty():
                if (item := queue.get_nowait()) is None:
                    yield batch
                    await reader
                    return
                batch.append(item)
                weighs += weight(item)
            yield batch
        # An error of the source is the consumer's to know.
        await reader
    finally:
        reader.cancel()
        # Not awaited itself: a cancellation of ours must not be taken for the reader's.
        await asyncio.wait((reader,))
