"""The words that docs/glossary.md bans occur in no name under service/ and in no page."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
QUOTED = re.compile(r"`([^`\n]+)`")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`|\]\([^)]*\)", re.DOTALL | re.MULTILINE)


def banned(where: str) -> frozenset[str]:
    """Return the words of the glossary's table whose last column is `where` or "everywhere"."""
    section = GLOSSARY.read_text(encoding="utf-8").partition("## Banned words")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    return frozenset(word for row in rows if row[2] in {where, "everywhere"} for word in QUOTED.findall(row[0]))


def contracts() -> frozenset[str]:
    """Return the names that the glossary exempts, lower-case, as settings and as attributes of Settings."""
    exempt = GLOSSARY.read_text(encoding="utf-8").partition("stay as they are:")[2]
    names = [name.lower() for name in QUOTED.findall(exempt)]
    return frozenset(names) | {name.removeprefix("zap_") for name in names}


def names_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of every class, function, argument, attribute and variable that a module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name


def in_names(path: str, source: str) -> Iterator[str]:
    """Yield each breach in the names of one module, given by its path below service/."""
    words, exempt = banned("names"), contracts()
    parts = [(1, part) for part in Path(path).with_suffix("").parts]
    for line, name in sorted({*parts, *names_of(ast.parse(source))}):
        if name.lower() not in exempt and (found := {word.lower() for word in WORD.findall(name)} & words):
            yield f"service/{path}:{line}: {name} ({', '.join(sorted(found))})"


def in_text(page: str, text: str) -> Iterator[str]:
    """Yield each breach in the prose of one page; code and addresses of links do not count."""
    pattern = re.compile(rf"\b({'|'.join(sorted(banned('text')))})\b", re.IGNORECASE)
    prose = CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    for number, line in enumerate(prose.splitlines(), 1):
        yield from (f"{page}:{number}: {found}" for found in pattern.findall(line))


def test_names_use_no_banned_word() -> None:
    service = ROOT / "service"
    breaches = [
        breach
        for path in sorted(service.rglob("*.py"))
        for breach in in_names(str(path.relative_to(service)), path.read_text(encoding="utf-8"))
    ]
    assert not breaches, "\n".join(["see docs/glossary.md:", *breaches])


def test_pages_use_no_banned_word() -> None:
    breaches = [
        breach
        for page in PAGES
        if page != GLOSSARY
        for breach in in_text(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))
    ]
    assert not breaches, "\n".join(["see docs/glossary.md:", *breaches])


def test_the_glossary_has_each_word_once_with_one_sentence() -> None:
    table = GLOSSARY.read_text(encoding="utf-8").partition("## Words")[2].partition("## Banned")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][2:]
    words = [row[0] for row in rows]
    assert len(words) == len(set(words))
    assert [row[0] for row in rows if not row[1].endswith(".") or ". " in row[1] or not row[2]] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sessions/crowd.py", ""),
        ("sessions/limiter.py", "class WatchCrowd: ..."),
        ("sessions/limiter.py", "def find_heir(): ..."),
        ("sessions/limiter.py", "async def f(wish): ..."),
        ("sessions/limiter.py", "PATIENCE = 1"),
        ("sessions/limiter.py", "class A:\n    def __init__(self):\n        self._roster = None"),
        ("sessions/limiter.py", "turn: int = 1"),
    ],
)
def test_a_banned_name_is_found(path: str, source: str) -> None:
    assert list(in_names(path, source))


def test_standard_and_contracted_names_pass() -> None:
    assert not list(in_names("sessions/limiter.py", "watch_patience = returned = 1\nclass StartLimiter: FALLEN = 1"))


def test_a_banned_word_in_a_page_is_found_outside_code_only() -> None:
    assert list(in_text("a.md", "The node\nis Told.")) == ["a.md:2: Told"]
    assert not list(in_text("a.md", "`nobody`, [events](nobody.md)\n```\ntold\n```\nforetold"))
