"""QR codes as pictures: drawn once for all who watch, in a thread, and forgotten soon."""

import asyncio
import io
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import segno

REMEMBERED = 64
"""Codes drawn last. One serves every subscriber of a session for its 20 to 60 seconds."""
FORGOTTEN_AFTER = 60.0
"""Seconds: a code is a secret while it lasts and worthless later, and none lasts longer."""
_PIXELS_PER_MODULE = 6
_TERMINAL_BORDER = 2
"""Modules of light around the code. The norm's 4 would cost lines of a terminal; phones read it with 2."""


@dataclass(frozen=True)
class Picture:
    """A code as PNG, and as half blocks for light text on dark ground."""

    png: bytes = field(repr=False)
    terminal_text: str = field(repr=False)


class QrRenderer:
    """Draws codes."""

    def __init__(self, remembered: int = REMEMBERED, forgotten_after: float = FORGOTTEN_AFTER) -> None:
        self._remembered = remembered
        self._forgotten_after = forgotten_after
        self._drawn: OrderedDict[str, asyncio.Future[Picture]] = OrderedDict()
        # One thread: drawing holds the interpreter, more of them would only take turns.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")

    async def of(self, text: str) -> Picture:
        """The picture of a code; whoever asks while it is being drawn waits for the same one."""
        loop = asyncio.get_running_loop()
        drawing = self._drawn.get(text)
        if drawing is None:
            drawing = self._drawn[text] = loop.run_in_executor(self._thread, draw, text)
            loop.call_later(self._forgotten_after, self._forget, text, drawing)
            while len(self._drawn) > self._remembered:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(text)
        # Shielded: a subscriber that leaves must not take the drawing away from the others.
        return await asyncio.shield(drawing)

    def close(self) -> None:
        """Let the thread go."""
        self._drawn.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _forget(self, text: str, drawing: asyncio.Future[Picture]) -> None:
        if self._drawn.get(text) is drawing:
            del self._drawn[text]


def draw(text: str) -> Picture:
    """Both pictures of a text, with the lowest error correction: on a screen nothing gets dirty, and it stays small."""
    code = segno.make(text, error="l", boost_error=False, micro=False)
    png = io.BytesIO()
    code.save(png, kind="png", scale=_PIXELS_PER_MODULE)
    rows = [list(row) for row in code.matrix_iter(scale=1, border=_TERMINAL_BORDER)]
    return Picture(png.getvalue(), half_blocks(rows))


def half_blocks(rows: list[list[int]]) -> str:
    """Two rows of modules in each line. Light modules are drawn, dark ones are left to the terminal's ground."""
    light_pairs = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    if len(rows) % 2:
        rows = [*rows, [1] * len(rows[0])]
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        lines.append("".join(light_pairs[bool(u), bool(v)] for u, v in zip(upper, lower, strict=True)))
    return "\n".join(lines)
