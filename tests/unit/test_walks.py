"""What the pages say of the code exists: the stations of the walks, and every path and link."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "service"
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
MOST_STATIONS = 15

FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
PATH = re.compile(r"`([\w-][\w.-]*(?:/[\w.-]+)*(?:/|\.(?:py|sql|proto|md|yml)))`")
FOLDER = re.compile(r"`([a-z_]+(?:/[a-z_]+)+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
BASES = (ROOT, SERVICE, ROOT / "simulator", ROOT / "tests", ROOT / "benchmarks")


def walks() -> dict[str, list[str]]:
    """Return the stations of each walk in docs/architecture.md, by its heading."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = re.search(r"^## Walks\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    assert section is not None
    _, *parts = re.split(r"^### (.+)\n", section[1], flags=re.MULTILINE)
    stations = (re.findall(r"^\d+\. `([^`]+)`", part, re.MULTILINE) for part in parts[1::2])
    return dict(zip(parts[::2], stations, strict=True))


def exists(station: str) -> bool:
    """Return whether `module.name` or `module.Class.name` is defined under service/, without importing it."""
    parts = station.split(".")
    for at in range(len(parts) - 1, 0, -1):
        module = SERVICE.joinpath(*parts[:at]).with_suffix(".py")
        if module.is_file():
            return _defines(ast.parse(module.read_text(encoding="utf-8")).body, parts[at:])
    return False


def _defines(body: list[ast.stmt], names: list[str]) -> bool:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == names[0]:
            return len(names) == 1 or (isinstance(node, ast.ClassDef) and _defines(node.body, names[1:]))
    return False


def wrong_paths(text: str) -> Iterator[str]:
    """Yield each path in backticks that is no file or folder of the repository."""
    prose = FENCED.sub("", text)
    for path in (*PATH.findall(prose), *FOLDER.findall(prose)):
        if not any((base / path).exists() for base in BASES):
            yield path


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_links(page: Path, text: str) -> Iterator[str]:
    """Yield each link to a file or heading of the repository that leads nowhere."""
    for file, anchor in LINK.findall(FENCED.sub("", text)):
        target = page.parent / file if file else page
        if not target.exists():
            yield file
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{file}#{anchor}"


def test_there_are_three_walks_of_few_stations() -> None:
    assert len(walks()) == 3
    assert all(0 < len(stations) <= MOST_STATIONS for stations in walks().values())


@pytest.mark.parametrize(("walk", "station"), [(walk, one) for walk, stations in walks().items() for one in stations])
def test_a_station_exists(walk: str, station: str) -> None:
    assert exists(station), f"{walk}: {station} is not defined under service/"


def test_every_room_is_in_the_list() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)
    rooms = {path.parent.name for path in SERVICE.glob("*/__init__.py")}
    assert sorted(listed) == sorted(rooms)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [*wrong_paths(text), *wrong_links(page, text)] == []


def test_what_does_not_exist_is_found() -> None:
    assert not exists("sessions.runner.Runner.fly")
    assert not exists("sessions.nowhere.Runner")
    assert list(wrong_paths("`sessions/nowhere.py`, `nowhere/`, `sessions/nowhere`")) == [
        *("sessions/nowhere.py", "nowhere/", "sessions/nowhere")
    ]
    page = ROOT / "docs" / "architecture.md"
    assert list(wrong_links(page, "[a](nowhere.md), [b](#nowhere), [c](events.md)")) == ["nowhere.md", "#nowhere"]
