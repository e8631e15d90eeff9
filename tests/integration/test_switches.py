"""The switches on the real library: found in its file, on in a session process, and refused in altered copies."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from typing import Any

import pytest

from service.domain.errors import Unavailable
from service.worker.library import switches
from service.worker.library.switches import SWITCHES, WHATSMEOW, Patch
from service.workers.pool import Pool, PoolSettings
from tests.altered_neonize import AlteredNeonize, installed_library
from tests.integration.test_loader import run

NAMES = {switch.name for switch in SWITCHES}
ORDER = PoolSettings("postgresql://zap@127.0.0.1:9/none")

#: Loads the library in a child of a process that is prepared like the zygote, and tells what `report` returns there.
CHILD = """
import ctypes, json, os, sys
from service.worker.library import loader, own_code
loader.import_without_library()

def switched(library):
    base = own_code.load_base(library.Neonize)
    seen = {}
    for patch in loader._patches:
        code = own_code.read(base + patch.address, len(patch.off))
        assert code in {patch.off, patch.on}
        seen[patch.switch.name + " " + patch.function] = code == patch.on
    return seen

def protections(library):
    base = own_code.load_base(library.Neonize)
    found = set()
    for line in open("/proc/self/maps"):
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if any(first <= base + patch.address < last for patch in loader._patches):
            found.add(line.split()[1])
    return sorted(found)

def refuse_memory_that_becomes_executable():
    assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0, "this kernel has no PR_SET_MDWE"

reading, writing = os.pipe()
if os.fork() == 0:
    try:
        answer = report()
    except loader.LoaderError as error:
        answer = str(error)
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)
os.close(writing)
answer = os.read(reading, 65536).decode()
os.wait()
print(answer)
"""


def in_child(report: str) -> Any:
    return run(CHILD.replace("reading, writing", f"{report}\nreading, writing", 1))


def test_every_switch_is_found_in_the_wheel_that_is_installed() -> None:
    patches = switches.find(installed_library())
    assert {patch.switch.name for patch in patches} == NAMES
    assert len({patch.address for patch in patches}) == len(patches) == 7


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the addresses are those of the amd64 wheel")
def test_the_places_are_those_that_were_disassembled() -> None:
    patches = switches.find(installed_library())
    assert [patch.address + patch.start for patch in patches] == [
        *(0x6F753A, 0x6F84C6),
        *(0x6C5D83, 0x6C43F7),
        0x6F29CC,
        0x6C4D18,
        0x7A0B1A,
    ]


@pytest.mark.parametrize("restored", [True, False])
def test_a_child_has_them_on_once_the_library_is_loaded(restored: bool) -> None:
    seen, protections = in_child(f"""
def report():
    library = loader.load_library(restored={restored})
    return switched(library), protections(library)
""")
    assert {name: is_on for name, is_on in seen.items() if not is_on} == (
        {} if restored else {"UNBUFFERED_EVENTS main.Neonize": False}
    )
    assert protections == ["r-xp"]


def test_a_child_of_which_the_kernel_lets_no_memory_become_executable_has_them_on() -> None:
    seen = in_child("""
from service.worker.library import switches
turn_on = switches.turn_on
def restricted(*arguments, **options):
    refuse_memory_that_becomes_executable()
    turn_on(*arguments, **options)
switches.turn_on = restricted
def report():
    return switched(loader.load_library(restored=True))
""")
    assert all(seen.values())


def test_a_child_that_may_not_write_to_its_memory_through_the_kernel_has_them_on() -> None:
    seen, protections = in_child("""
own_code._MEMORY = "/proc/self/mem/refused"
def report():
    library = loader.load_library(restored=True)
    return switched(library), protections(library)
""")
    assert all(seen.values())
    assert protections == ["r-xp"]


def test_a_child_that_may_do_neither_says_so() -> None:
    words = in_child("""
from service.worker.library import switches
own_code._MEMORY = "/proc/self/mem/refused"
turn_on = switches.turn_on
def restricted(*arguments, **options):
    refuse_memory_that_becomes_executable()
    turn_on(*arguments, **options)
switches.turn_on = restricted
def report():
    return switched(loader.load_library(restored=True))
""")
    assert "RETRY_STORE: this system lets no process change its own code" in words
    assert "mprotect: [Errno 13] Permission denied" in words


# --- other libraries


@pytest.fixture(scope="module")
def altered_neonize(tmp_path_factory: pytest.TempPathFactory) -> AlteredNeonize:
    return AlteredNeonize(tmp_path_factory.mktemp("altered"))


@pytest.fixture
def altered(altered_neonize: AlteredNeonize) -> Iterator[AlteredNeonize]:
    yield altered_neonize
    altered_neonize.restore()


def place(patch: Patch) -> int:
    """Return where a place is in the file."""
    return installed_library().read_bytes().index(patch.off)


PATCHES = switches.find(installed_library())


def names(patch: Patch) -> str:
    """Return an expression of the switches that have the same field: the first one counts its readers."""
    readers = {code.reader for code in patch.switch.code.values()}
    same = [switch.name for switch in SWITCHES if readers & {code.reader for code in switch.code.values()}]
    return f"(?:{'|'.join(same)})"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.function)
@pytest.mark.parametrize("before", ["the switch", "its reader's instruction", "what is before that"])
def test_one_byte_before_a_switch_that_is_another_refuses_the_library(
    altered: AlteredNeonize, patch: Patch, before: str
) -> None:
    distance = {"the switch": 1, "its reader's instruction": 8, "what is before that": 12}[before]
    offset = place(patch) + patch.start - distance
    byte = altered.library.read_bytes()[offset]
    altered.write(offset, bytes([byte ^ 1]))
    with pytest.raises(switches.SwitchError, match=rf"{names(patch)}.*Install neonize==0\.5\.2"):
        switches.find(altered.library)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.function)
def test_a_second_place_that_looks_the_same_refuses_the_library(altered: AlteredNeonize, patch: Patch) -> None:
    altered.write(place(patch) + 0x10000, patch.off)
    with pytest.raises(switches.SwitchError, match=rf"{names(patch)}: .* read its field, expected"):
        switches.find(altered.library)


def with_one_byte_altered(library: AlteredNeonize) -> str:
    library.write(place(PATCHES[0]) + PATCHES[0].start - 9, b"\x90")
    return "RETRY_STORE: (*Client).addRecentMessage was found 0 times, expected 1"


def with_a_second_match(library: AlteredNeonize) -> str:
    library.write(place(PATCHES[2]) + 0x10000, PATCHES[2].off)
    return "DECRYPTION_BUFFER: 3 instructions read its field, expected 2"


def with_another_version(library: AlteredNeonize) -> str:
    content = library.library.read_bytes()
    other = "v0.0.0-20270101" + WHATSMEOW[15:]
    library.library.write_bytes(content.replace(WHATSMEOW.encode(), other.encode()))
    return "it holds whatsmeow v0.0.0-"


@pytest.mark.parametrize("alter", [with_one_byte_altered, with_a_second_match, with_another_version])
async def test_a_pool_with_another_library_does_not_open_and_says_why(
    altered: AlteredNeonize, alter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    words = alter(altered)
    pool = Pool(ORDER, {**os.environ, **altered.environment()})
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable) as refused:
        await pool.open()
    for said in (str(refused.value), caplog.text):
        assert words in said
        assert "neonize 0.5.2 has another whatsmeow than this release was built for" in said
        assert "Install neonize==0.5.2" in said
    await pool.close()


async def test_a_pool_with_an_exact_copy_opens(altered: AlteredNeonize) -> None:
    pool = Pool(ORDER, {**os.environ, **altered.environment()})
    await pool.open()
    assert pool._zygote.pid is not None
    await pool.close()


def test_a_library_that_was_exchanged_after_the_zygote_s_start_is_refused(altered: AlteredNeonize) -> None:
    offset = place(PATCHES[4])
    words = run(
        f"""
import sys
sys.path.insert(0, {str(altered.library.parent.parent)!r})
{CHILD}""".replace(
            "reading, writing",
            f"""
assert loader._library_file() == __import__("pathlib").Path({str(altered.library)!r})
def report():
    with open({str(altered.library)!r}, "r+b") as file:
        file.seek({offset})
        file.write(b"\\x56")
    return switched(loader.load_library(restored=True))
reading, writing""",
            1,
        )
    )
    assert words.startswith("ACK_AFTER_HANDLER: the code of (*Client).maybeDeferredAck is not what it was in the file")
