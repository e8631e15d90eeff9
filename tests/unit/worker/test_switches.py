"""The search for the switches in made-up libraries, and turning them on in memory that is mapped like a library's."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import struct
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.worker.errors import LoaderError
from service.worker.library import own_code, switches
from service.worker.library.switches import AMD64, ARM64, SWITCHES, Patch, SwitchError

MODULE_LINE = b"\ndep\tgo.mau.fi/whatsmeow\t%s\th1:sum=\n"
CODE_AT, ADDRESS = 0x1000, 0x3000
"""Where the code is in the file, and from where the library is loaded."""
ELSEWHERE = {
    AMD64: bytes.fromhex("90 80ba a8000000 00 90"),  # cmp byte [rdx+0xa8], 0
    ARM64: bytes.fromhex("c7a04239 07020037"),  # ldrb w7, [x6, #0xa8]; tbnz w7, #0, ...
}
BOTH = pytest.mark.parametrize("machine", [AMD64, ARM64])


def written(signature: str, any_byte: int = 0x11) -> bytes:
    """Return code that has a signature."""
    return bytes.fromhex(re.sub(r"[|\[\]]", "", signature).replace("??", f"{any_byte:02x}"))


def signature(machine: int, switch: str, function: str) -> str:
    return next(entry.code[machine].sites[function] for entry in SWITCHES if entry.name == switch)


def names(switch: switches.Switch, machine: int) -> str:
    """Return an expression of the switches that have the same field: the first one counts its readers."""
    return "|".join(other.name for other in SWITCHES if other.code[machine].reader == switch.code[machine].reader)


@dataclass
class Library:
    """A made-up library: an ELF header, one executable segment, and what Go says of its modules."""

    machine: int = AMD64
    versions: tuple[str, ...] = (switches.WHATSMEOW,) * 2
    elsewhere: int = 2
    """How many instructions read the field of ACK_AFTER_HANDLER and RETRY_BEFORE_ACK besides those that are changed."""
    any_byte: int = 0x11
    executable_segments: int = 1
    replaced: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def code(self) -> bytes:
        texts = [text for switch in SWITCHES for text in switch.code[self.machine].sites.values()]
        parts = [written(text, self.any_byte) for text in texts] + [ELSEWHERE[self.machine]] * self.elsewhere
        code = bytes(16) + bytes(16).join(parts) + bytes(16)
        for old, new in self.replaced.items():
            assert old in code
            code = code.replace(old, new, 1)
        return code

    def content(self) -> bytes:
        code = self.code
        ident = b"\x7fELF\x02\x01".ljust(16, b"\0")
        count = 1 + self.executable_segments
        header = ident + struct.pack("<HHIQQQIHHHHHH", 3, self.machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
        headers = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, CODE_AT, CODE_AT, 0x1000)
        segment = struct.pack("<IIQQQQQQ", 1, 5, CODE_AT, ADDRESS, ADDRESS, len(code), len(code), 0x1000)
        modules = b"".join(MODULE_LINE % version.encode() for version in self.versions)
        return (header + headers + segment * self.executable_segments).ljust(CODE_AT, b"\0") + code + modules


def find(folder: Path, library: Library) -> tuple[Patch, ...]:
    file = folder / "library.so"
    file.write_bytes(library.content())
    return switches.find(file)


@BOTH
@pytest.mark.parametrize("any_byte", [0x00, 0x0A, 0x80, 0xFF])
def test_every_place_is_found_whatever_addresses_are_in_it(tmp_path: Path, machine: int, any_byte: int) -> None:
    library = Library(machine, any_byte=any_byte)
    patches = find(tmp_path, library)
    names = [(switch.name, function) for switch in SWITCHES for function in switch.code[machine].sites]
    assert [(patch.switch.name, patch.function) for patch in patches] == names
    for patch in patches:
        at = patch.address - ADDRESS
        assert library.code[at : at + len(patch.off)] == patch.off
        assert patch.off != patch.on
        assert len(patch.off) == len(patch.on)


def test_both_architectures_have_every_switch_in_the_same_functions() -> None:
    for switch in SWITCHES:
        assert list(switch.code[AMD64].sites) == list(switch.code[ARM64].sites)


def test_what_is_replaced_is_one_operand_or_one_instruction(tmp_path: Path) -> None:
    for patch in find(tmp_path, Library(AMD64)):
        assert len(patch.replacement) == 1
    for patch in find(tmp_path, Library(ARM64)):
        assert len(patch.replacement) == 4


@BOTH
@given(data=st.data())
def test_any_byte_of_a_signature_that_is_altered_refuses_the_library(
    tmp_path_factory: pytest.TempPathFactory, machine: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    switch = data.draw(st.sampled_from(SWITCHES))
    text = data.draw(st.sampled_from(list(switch.code[machine].sites.values())))
    signs = re.sub(r"[|\[\]]", "", text).split()
    at = data.draw(st.sampled_from([index for index, sign in enumerate(signs) if sign != "??"]))
    code = written(text)
    altered = code[:at] + bytes([code[at] ^ data.draw(st.integers(1, 255))]) + code[at + 1 :]
    # An altered reader can be one of another switch.
    with pytest.raises(SwitchError, match=r"^[A-Z_]+: .*; neonize 0\.5\.2 has another whatsmeow"):
        find(folder, Library(machine, replaced={code: altered}))


@BOTH
def test_a_place_that_is_missing_refuses_the_library(tmp_path: Path, machine: int) -> None:
    code = written(signature(machine, "RETRY_STORE", "(*Client).getMessageForRetry"))
    with pytest.raises(SwitchError, match="RETRY_STORE: 1 instructions read its field, expected 2"):
        find(tmp_path, Library(machine, replaced={code: bytes(len(code))}))


@BOTH
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_a_place_that_is_there_twice_refuses_the_library(tmp_path: Path, machine: int, switch: switches.Switch) -> None:
    code = written(next(iter(switch.code[machine].sites.values())))
    expected = switch.code[machine].readers
    words = f"(?:{names(switch, machine)}): {expected + 1} instructions read its field, expected {expected}"
    with pytest.raises(SwitchError, match=words):
        find(tmp_path, Library(machine, replaced={code: code + bytes(16) + code}))


@BOTH
def test_a_place_in_another_s_stead_refuses_the_library(tmp_path: Path, machine: int) -> None:
    add = written(signature(machine, "RETRY_STORE", "(*Client).addRecentMessage"))
    get = written(signature(machine, "RETRY_STORE", "(*Client).getMessageForRetry"))
    with pytest.raises(SwitchError, match=r"RETRY_STORE: \(\*Client\).addRecentMessage was found 2 times, expected 1"):
        find(tmp_path, Library(machine, replaced={get: add}))


@BOTH
@pytest.mark.parametrize("elsewhere", [1, 3])
def test_another_number_of_readers_refuses_the_library(tmp_path: Path, machine: int, elsewhere: int) -> None:
    words = f"ACK_AFTER_HANDLER: {elsewhere + 2} instructions read its field, expected 4"
    with pytest.raises(SwitchError, match=words):
        find(tmp_path, Library(machine, elsewhere=elsewhere))


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        (("v0.0.0-20270101000000-0123456789ab",) * 2, "holds whatsmeow v0.0.0-20270101000000-0123456789ab, expected"),
        ((switches.WHATSMEOW, "v1.0.0"), f"holds whatsmeow {switches.WHATSMEOW}, v1.0.0, expected"),
        ((f"{switches.WHATSMEOW}+dirty",), "dirty, expected"),
        ((), "holds whatsmeow none, expected"),
    ],
)
def test_another_version_refuses_the_library(tmp_path: Path, versions: tuple[str, ...], words: str) -> None:
    with pytest.raises(SwitchError, match=re.escape(words)):
        find(tmp_path, Library(versions=versions))


def test_another_kind_of_processor_is_refused(tmp_path: Path) -> None:
    content = bytearray(Library().content())
    content[18:20] = struct.pack("<H", 243)
    (tmp_path / "riscv.so").write_bytes(content)
    with pytest.raises(SwitchError, match="for processors of ELF's kind 243"):
        switches.find(tmp_path / "riscv.so")


@pytest.mark.parametrize("executable_segments", [0, 2])
def test_a_library_that_is_put_together_differently_is_refused(tmp_path: Path, executable_segments: int) -> None:
    with pytest.raises(SwitchError, match=f"{executable_segments} executable segments, expected 1"):
        find(tmp_path, Library(executable_segments=executable_segments))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "library.so cannot be read"),
        (MODULE_LINE % switches.WHATSMEOW.encode() + bytes(64), "is not an ELF file"),
        (
            Library().content().replace(struct.pack("<Q", 64), struct.pack("<Q", 1 << 40), 1),
            "library.so cannot be read",
        ),
    ],
)
def test_a_file_that_is_no_library_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "library.so").write_bytes(content)
    with pytest.raises(SwitchError, match=words):
        switches.find(tmp_path / "library.so")


def test_a_file_that_is_not_there_is_refused_by_the_loader_s_error(tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match=r"absent\.so cannot be read.*Install neonize==0\.5\.2"):
        switches.find(tmp_path / "absent.so")


def test_the_release_is_built_for_the_neonize_that_is_pinned() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"neonize=={switches.NEONIZE}" in project["project"]["dependencies"]


# --- in memory

Map = Callable[[bytes], int]


@pytest.fixture
def map_code() -> Iterator[Map]:
    """Map code as the linker does, privately from a file, and return where the library would begin."""
    yield from mapping(os.O_RDWR, mmap.MAP_PRIVATE)


@pytest.fixture
def map_locked() -> Iterator[Map]:
    """Map code in a way that neither the kernel nor mprotect lets anyone change: shared, from a file opened to read."""
    yield from mapping(os.O_RDONLY, mmap.MAP_SHARED)


def mapping(mode: int, flags: int) -> Iterator[Map]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    mapped: list[tuple[int, int]] = []

    def map_it(code: bytes) -> int:
        memory = os.memfd_create("library")
        os.write(memory, code)
        file = os.open(f"/proc/self/fd/{memory}", mode)
        address = libc.mmap(None, len(code), mmap.PROT_READ | mmap.PROT_EXEC, flags, file, 0)
        os.close(file)
        os.close(memory)
        assert address not in {None, ctypes.c_void_p(-1).value}
        mapped.append((address, len(code)))
        return int(address) - ADDRESS

    yield map_it
    for address, length in mapped:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))


def is_on(patch: Patch, base: int) -> bool:
    seen = own_code.read(base + patch.address, len(patch.off))
    assert seen in {patch.off, patch.on}
    return seen == patch.on


def protection(address: int) -> str:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        first, _, last = line.split()[0].partition("-")
        if int(first, 16) <= address < int(last, 16):
            return line.split()[1]
    return "none"


@BOTH
def test_a_restored_session_has_every_switch_on(tmp_path: Path, map_code: Map, machine: int) -> None:
    library = Library(machine)
    patches, base = find(tmp_path, library), map_code(library.code)
    switches.turn_on(patches, base, restored=True)
    assert all(is_on(patch, base) for patch in patches)
    changed = sum(a != b for a, b in zip(own_code.read(base + ADDRESS, len(library.code)), library.code, strict=True))
    assert changed <= sum(len(patch.replacement) for patch in patches)


def test_a_session_that_pairs_keeps_the_channel(tmp_path: Path, map_code: Map) -> None:
    library = Library()
    patches, base = find(tmp_path, library), map_code(library.code)
    switches.turn_on(patches, base, restored=False)
    assert [patch.switch.name for patch in patches if not is_on(patch, base)] == ["UNBUFFERED_EVENTS"]


def test_what_is_on_stays_on(tmp_path: Path, map_code: Map) -> None:
    library = Library()
    patches, base = find(tmp_path, library), map_code(library.code)
    for restored in (False, True, True, False):
        switches.turn_on(patches, base, restored=restored)
    assert all(is_on(patch, base) for patch in patches)


def test_a_library_in_memory_that_is_not_the_file_s_is_refused(tmp_path: Path, map_code: Map) -> None:
    library = Library()
    patches = find(tmp_path, library)
    for patch in patches:
        for at in {0, patch.start - 1, patch.start, len(patch.off) - 1}:
            code = bytearray(library.code)
            code[patch.address - ADDRESS + at] ^= 0x40
            with pytest.raises(
                SwitchError, match=f"{patch.switch.name}: the code of .* is not what it was in the file"
            ):
                switches.turn_on([patch], map_code(bytes(code)), restored=True)


@pytest.mark.parametrize("memory", ["/nonexistent", "/dev/full"])
def test_where_the_kernel_refuses_to_write_the_page_is_made_writable_for_a_moment(
    tmp_path: Path, map_code: Map, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    monkeypatch.setattr(own_code, "_MEMORY", memory)
    library = Library()
    patches, base = find(tmp_path, library), map_code(library.code)
    switches.turn_on(patches, base, restored=True)
    assert all(is_on(patch, base) for patch in patches)
    assert protection(base + ADDRESS) == "r-xp"


def test_where_neither_is_allowed_the_words_say_so(tmp_path: Path, map_locked: Map) -> None:
    library = Library()
    patches, base = find(tmp_path, library), map_locked(library.code)
    words = r"RETRY_STORE: this system lets no process change its own code \(/proc/self/mem: .*; mprotect: .*\)"
    with pytest.raises(SwitchError, match=words):
        switches.turn_on(patches, base, restored=True)
    assert not any(is_on(patch, base) for patch in patches)


def test_what_was_written_is_read_back(tmp_path: Path, map_code: Map, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_MEMORY", "/dev/null")
    library = Library()
    patches, base = find(tmp_path, library), map_code(library.code)
    with pytest.raises(SwitchError, match="does not read as it was written"):
        switches.turn_on(patches, base, restored=True)


def test_the_linker_knows_no_library_where_there_is_none() -> None:
    with pytest.raises(OSError, match="linker"):
        own_code.load_base(ctypes.c_void_p(4096))
