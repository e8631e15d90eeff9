"""QR codes as pictures: what they show, that they are drawn once, and that they are forgotten."""

import asyncio

import pytest
import segno

from service.api.grpc import qr_rendering
from service.api.grpc.qr_rendering import QrRenderer, draw, half_blocks
from tests.fakes.core import code


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were drawn."""
    texts: list[str] = []

    def drawing(text: str) -> qr_rendering.Picture:
        texts.append(text)
        return draw(text)

    monkeypatch.setattr(qr_rendering, "draw", drawing)
    return texts


def test_half_blocks_draw_what_is_light() -> None:
    assert half_blocks([[0, 1, 0, 1], [0, 0, 1, 1]]) == "█▄▀ "
    assert half_blocks([[0, 1]]) == "▀ ", "below the last row the ground is dark"


def test_the_terminals_picture_is_the_code_with_light_around_it() -> None:
    text = code().text
    lines = draw(text).terminal_text.split("\n")
    assert len({len(line) for line in lines}) == 1
    modules = [[cell in " ▄" if upper else cell in " ▀" for cell in line] for line in lines for upper in (True, False)]
    matrix = [[bool(module) for module in row] for row in segno.make(text, error="l", boost_error=False).matrix]
    size = len(matrix)
    assert [row[2 : 2 + size] for row in modules[2 : 2 + size]] == matrix
    assert not any(any(row) for row in modules[:2])
    assert not any(any(row[:2]) or any(row[-2:]) for row in modules[: size + 4])


async def test_a_code_is_drawn_once_for_all_who_watch(drawn: list[str]) -> None:
    subject = QrRenderer()
    shown = await asyncio.gather(*(subject.of("a") for _ in range(10)))
    assert drawn == ["a"]
    assert all(picture is shown[0] for picture in shown)
    subject.close()


async def test_who_leaves_does_not_take_the_picture_from_the_others(drawn: list[str]) -> None:
    subject = QrRenderer()
    leaving, staying = asyncio.create_task(subject.of("a")), asyncio.create_task(subject.of("a"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).png.startswith(b"\x89PNG")
    assert drawn == ["a"]
    subject.close()


async def test_codes_are_forgotten_by_number_and_by_time(drawn: list[str]) -> None:
    subject = QrRenderer(remembered=2, forgotten_after=0.2)
    for text in ("a", "b", "c", "b", "a"):
        await subject.of(text)
    assert drawn == ["a", "b", "c", "a"]
    await asyncio.sleep(0.4)
    await subject.of("a")
    assert drawn == ["a", "b", "c", "a", "a"]
    subject.close()
