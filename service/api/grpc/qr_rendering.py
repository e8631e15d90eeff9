"""Renders QR codes once for all subscribers, in a thread, and caches them briefly."""

import asyncio
import io
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import segno

_CACHE_SIZE = 64
"""Cached codes. One entry serves every subscriber of a session for the 20 to 60 seconds of its code."""
_CACHE_TTL_S = 60.0
"""No code is valid for longer. A valid code is a secret, and an expired one is useless."""
_PIXELS_PER_MODULE = 6
_TERMINAL_BORDER = 2
"""Light modules around the code. The standard's 4 would cost terminal lines, and phones read the code with 2."""


@dataclass(frozen=True)
class Picture:
    """A code as PNG, and as half blocks for a terminal with light text on a dark background."""

    png: bytes = field(repr=False)
    terminal_text: str = field(repr=False)


class QrRenderer:
    """Renders codes and caches the pictures."""

    def __init__(self, remembered: int = _CACHE_SIZE, forgotten_after: float = _CACHE_TTL_S) -> None:
        self._remembered = remembered
        self._forgotten_after = forgotten_after
        self._drawn: OrderedDict[str, asyncio.Future[Picture]] = OrderedDict()
        # Drawing holds the interpreter lock, so that more threads would gain nothing.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")

    async def of(self, text: str) -> Picture:
        """Return the picture of a code. Concurrent calls for one code share one drawing."""
        loop = asyncio.get_running_loop()
        drawing = self._drawn.get(text)
        if drawing is None:
            drawing = self._drawn[text] = loop.run_in_executor(self._thread, draw, text)
            loop.call_later(self._forgotten_after, self._forget, text, drawing)
            while len(self._drawn) > self._remembered:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(text)
        # Shield the drawing: a cancelled subscriber must not cancel it for the others.
        return await asyncio.shield(drawing)

    def close(self) -> None:
        """Clear the cache and stop the thread."""
        self._drawn.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _forget(self, text: str, drawing: asyncio.Future[Picture]) -> None:
        if self._drawn.get(text) is drawing:
            del self._drawn[text]


def draw(text: str) -> Picture:
    """Return the pictures of a text. Screens do not get dirty, so the lowest error correction keeps them small."""
    code = segno.make(text, error="l", boost_error=False, micro=False)
    png = io.BytesIO()
    code.save(png, kind="png", scale=_PIXELS_PER_MODULE)
    rows = [list(row) for row in code.matrix_iter(scale=1, border=_TERMINAL_BORDER)]
    return Picture(png.getvalue(), half_blocks(rows))


def half_blocks(rows: list[list[int]]) -> str:
    """Return two rows of modules per line. Light modules are drawn; dark ones show the terminal's background."""
    light_pairs = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    if len(rows) % 2:
        rows = [*rows, [1] * len(rows[0])]
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        lines.append("".join(light_pairs[bool(u), bool(v)] for u, v in zip(upper, lower, strict=True)))
    return "\n".join(lines)
