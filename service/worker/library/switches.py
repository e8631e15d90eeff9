"""Turns on switches of whatsmeow that neonize does not expose, by changing a few bytes of its code in memory.

Each switch is a field that is never set, so that every instruction that reads it sees "off". Those instructions are
changed so that they see "on". Instruction boundaries stay where they are, and the library's file is not touched.

The zygote searches the file once (`find`), before any fork, and refuses a library whose bytes differ from this table.
Each session process changes its memory (`turn_on`) after the library is loaded and before a client exists, when none of
that code runs. Go does not verify its code.
"""

import mmap
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from service.worker.errors import LoaderError
from service.worker.library import own_code

NEONIZE = "0.5.2"
WHATSMEOW = "v0.0.0-20260921121126-35ae40906e74"

AMD64, ARM64 = 62, 183
"""Numbers of the architectures in ELF."""

_NOP = bytes.fromhex("1f2003d5")
_CLIENT_GO = "https://github.com/tulir/whatsmeow/blob/33cfac5116293e4cb86f8e4099e8eaf6de7ebc08/client.go"
_MESSAGE_GO = "https://github.com/tulir/whatsmeow/blob/33cfac5116293e4cb86f8e4099e8eaf6de7ebc08/message.go"
_MAIN_GO = "https://github.com/krypton-byte/neonize/blob/fcd96cb3d86971ce296babd7a3bddea940b99bbd/goneonize/main.go"


class SwitchError(LoaderError):
    """A switch cannot be turned on, and without it messages would be lost."""


@dataclass(frozen=True)
class Code:
    """What a switch changes in the code of one architecture."""

    reader: bytes
    """A regular expression of the instruction that reads the field."""
    readers: int
    """The number of such instructions in the whole code; those outside `sites` stay as they are."""
    sites: Mapping[str, str]
    """The bytes by function, in hex. `??` is any byte, `|` is where the reader begins, `[]` is what is replaced."""
    on: bytes
    """The bytes that replace those in brackets."""


@dataclass(frozen=True)
class Switch:
    """A switch: its name, its effect, the reason for it, its source, and what it changes."""

    name: str
    effect: str
    why: str
    upstream: str
    code: Mapping[int, Code]
    """By architecture."""
    only_restored: bool = False
    """Whether the switch stays off in a process that pairs."""


#: amd64: `cmp byte [register + field], 0` before a `je`. With 2 in place of 0 a bool never matches, and the jump is
#: never taken. arm64: `ldrb` from the field and `tbz`, the jump, which becomes a `nop`. Comments mark the exceptions.
SWITCHES = (
    Switch(
        name="RETRY_STORE",
        effect="sent messages are kept in whatsmeow_retry_buffer for 7 days",
        why="a phone that could not read a message gets it again after a restart, a hand-over or 256 further sends",
        upstream=f"{_CLIENT_GO}#L165",
        code={
            AMD64: Code(
                reader=rb"\x80(?:[\xb8-\xbb\xbd-\xbf]|\xbc\x24)\xa0\x3a\x00\x00\x00",
                readers=2,
                sites={
                    "(*Client).addRecentMessage": "4c 89 8c 24 60 01 00 00 48 89 b4 24 50 01 00 00 48 89 bc 24 48 01 "
                    "00 00 84 00 | 80 b8 a0 3a 00 00 [00] 0f 1f 44 00 00 0f 84 ?? ?? ?? ?? 48 89 8c 24 40 01 00 00",
                    "(*Client).getMessageForRetry": "48 8b 9c 24 80 01 00 00 4c 8d ac 24 90 00 00 00 4c 8b a4 24 68 "
                    "01 00 00 41 84 04 24 41 | 80 bc 24 a0 3a 00 00 [00] 0f 84 ?? ?? ?? ?? 48 8d 94 24 10 01 00 00",
                },
                on=b"\x02",
            ),
            ARM64: Code(
                reader=rb"\x6a\x39(?<=[\x0c-\x0f]\x40\x91.[\x80-\x83]\x6a\x39)...[\x36\x37]",
                readers=2,
                sites={
                    "(*Client).addRecentMessage": "e3 13 13 a9 e5 03 05 39 e6 87 02 79 e7 8b 02 79 e8 a7 14 a9 1b 00 "
                    "80 39 1b 0c 40 91 6e 83 | 6a 39 [?? ?? ?? 36] e2 97 00 f9 e1 93 00 f9",
                    "(*Client).getMessageForRetry": "fd fb 7f a9 ff c3 05 91 c0 03 5f d6 e1 cb 40 f9 f0 bf 40 f9 1b "
                    "02 80 39 1b 0e 40 91 71 83 | 6a 39 [?? ?? ?? 36] 2c 34 40 a9 2e 3c 41 a9",
                },
                on=_NOP,
            ),
        },
    ),
    Switch(
        name="DECRYPTION_BUFFER",
        effect="ratchet and plaintext are committed together, in whatsmeow_event_buffer; the plaintext is cleared "
        "after the handler returned, and only then does the receipt go out",
        why="a process that is killed between the two gets the message again",
        upstream=f"{_CLIENT_GO}#L86",
        code={
            AMD64: Code(
                reader=rb"\x80[\xb8-\xbb\xbd-\xbf]\xa9\x00\x00\x00\x00",
                readers=2,
                sites={
                    "(*Client).bufferedDecrypt": "48 8d 05 ?? ?? ?? ?? e8 ?? ?? ?? ?? 48 89 84 24 60 01 00 00 48 8b 8c "
                    "24 b8 01 00 00 | 80 b9 a9 00 00 00 [00] 74 ?? 90 90 48 8d 44 24 68",
                    "(*Client).decryptMessages": "48 8b 94 24 50 03 00 00 0f 1f 40 00 48 85 d2 0f 84 ?? ?? ?? ?? 48 8b "
                    "b4 24 60 05 00 00 | 80 be a9 00 00 00 [00] 0f 84 ?? ?? ?? ?? 88 9c 24 a5 00 00 00",
                },
                on=b"\x02",
            ),
            ARM64: Code(
                reader=rb"\x42\x39(?<=.[\xa4-\xa6]\x42\x39|[\x00-\xdf]\xa7\x42\x39)...[\x36\x37]",
                readers=2,
                sites={
                    "(*Client).bufferedDecrypt": "e0 b7 00 f9 ?? ?? ?? ?? 00 80 33 91 ?? ?? ?? ?? e0 bb 00 f9 e1 d7 40 "
                    "f9 22 a4 | 42 39 [?? ?? ?? 36] 1f 20 03 d5 1f 20 03 d5",
                    "(*Client).decryptMessages": "e5 63 40 f9 ?? ?? ?? ?? e1 03 1f aa ?? ?? ?? ?? e0 47 41 f9 ?? ?? ?? "
                    "?? e4 37 42 f9 85 a4 | 42 39 [?? ?? ?? 36] e1 77 02 39 03 14 40 a9",
                },
                on=_NOP,
            ),
        },
    ),
    Switch(
        name="ACK_AFTER_HANDLER",
        effect="receipts, notifications, calls and newsletter posts are acknowledged after the handler, not before",
        why="what a process that is killed did not hand over comes again",
        upstream=f"{_CLIENT_GO}#L84-L85",
        code={
            AMD64: Code(
                reader=rb"\x80[\xb8-\xbb\xbd-\xbf]\xa8\x00\x00\x00\x00",
                # RETRY_BEFORE_ACK changes one more. The other two stay off: they would make receipts wait for each
                # other, and ask the account's phone for a resend at once.
                readers=4,
                sites={
                    "(*Client).maybeDeferredAck": "55 48 89 e5 48 83 ec 10 48 89 44 24 20 48 89 7c 24 38 48 89 4c 24 "
                    "30 48 89 5c 24 28 | 80 b8 a8 00 00 00 [00] 74 ?? 48 8d 05 ?? ?? ?? ?? e8",
                },
                on=b"\x02",
            ),
            ARM64: Code(
                reader=rb"\x42\x39(?<=.[\xa0-\xa2]\x42\x39|[\x00-\xdf]\xa3\x42\x39)...[\x36\x37]",
                readers=4,
                sites={
                    "(*Client).maybeDeferredAck": "fe 0f 1d f8 fd 83 1f f8 fd 23 00 d1 e0 1f 00 f9 e3 2b 00 f9 e2 27 "
                    "00 f9 e1 23 00 f9 04 a0 | 42 39 [?? ?? ?? 36] ?? ?? ?? ?? 00 00 1b 91",
                },
                on=_NOP,
            ),
        },
    ),
    Switch(
        name="RETRY_BEFORE_ACK",
        effect="a message that cannot be decrypted is acknowledged after its sender was asked for it again",
        why="whatsmeow says both at the same time; a process that is killed in between has acknowledged a message that "
        "its sender takes for read",
        upstream=f"{_MESSAGE_GO}#L419-L426",
        code={
            # Here the jump is a `jne`, which is always taken if a bool is compared with 2.
            AMD64: Code(
                reader=rb"\x80[\xb8-\xbb\xbd-\xbf]\xa8\x00\x00\x00\x00",
                readers=4,
                sites={
                    "(*Client).decryptMessages": "48 89 c3 48 89 c8 0f 1f 00 e8 ?? ?? ?? ?? e9 ?? ?? ?? ?? 48 8b 94 24 "
                    "60 05 00 00 | 80 ba a8 00 00 00 [00] 0f 85 ?? ?? ?? ?? 48 8b 8c 24 68 05 00 00",
                },
                on=b"\x02",
            ),
            # Here the jump is a `tbnz`, which becomes a `b` to the same target.
            ARM64: Code(
                reader=rb"\x42\x39(?<=.[\xa0-\xa2]\x42\x39|[\x00-\xdf]\xa3\x42\x39)...[\x36\x37]",
                readers=4,
                sites={
                    "(*Client).decryptMessages": "e1 03 00 aa e0 03 02 aa ?? ?? ?? ?? ?? ?? ?? ?? e6 37 42 f9 c7 a0 | "
                    "42 39 [07 08 00 37] e1 3b 42 f9",
                },
                on=bytes.fromhex("40000014"),
            ),
        },
    ),
    Switch(
        name="UNBUFFERED_EVENTS",
        effect="an event is handed over when it is taken; neonize's channel holds none in place of 100",
        why="one event at the most is in memory alone. Not in a process that pairs: nothing takes events before the QR "
        "channel is closed, and the first event would block the pairing",
        upstream=f"{_MAIN_GO}#L625",
        code={
            AMD64: Code(
                reader=rb"\xbb\x64\x00\x00\x00\x66\x90\xe8",
                readers=1,
                sites={
                    "main.Neonize": "48 89 84 24 b0 00 00 00 48 89 5c 24 58 48 8d 05 ?? ?? ?? ?? | bb [64] 00 00 00 66 "
                    "90 e8 ?? ?? ?? ?? 48 89 84 24 28 01 00 00",
                },
                on=b"\x00",
            ),
            ARM64: Code(
                reader=rb"\x81\x0c\x80\xd2(?<=\x91\x81\x0c\x80\xd2)...[\x94-\x97]",
                readers=1,
                sites={
                    "main.Neonize": "e0 4f 41 f9 ?? ?? ?? ?? e0 63 00 f9 e1 37 00 f9 ?? ?? ?? ?? 00 00 21 91 | "
                    "[81 0c 80 d2] ?? ?? ?? 97 e0 9f 00 f9",
                },
                on=bytes.fromhex("010080d2"),
            ),
        },
        only_restored=True,
    ),
)


@dataclass(frozen=True)
class Patch:
    """One change of a switch to the library's code."""

    switch: Switch
    function: str
    address: int
    """The address of `off`, relative to where the library is loaded."""
    off: bytes
    """The bytes around the change, as they are in the file."""
    start: int
    """The index in `off` at which the replacement begins."""
    replacement: bytes

    @property
    def on(self) -> bytes:
        """Return `off` with the replacement, as it is once the switch is on."""
        return self.off[: self.start] + self.replacement + self.off[self.start + len(self.replacement) :]


class _Segment(NamedTuple):
    """The executable part of the file."""

    start: int
    end: int
    address: int


def find(library: Path) -> tuple[Patch, ...]:
    """Return what `turn_on` changes. Raise SwitchError if the file is not the library that the table was made for."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            return tuple(_find(image))
    except (OSError, ValueError, struct.error) as error:
        raise _other_library(f"{library.name} cannot be read: {error}") from error


def _find(image: mmap.mmap) -> Iterator[Patch]:
    versions = set(re.findall(rb"go\.mau\.fi/whatsmeow\t([^\t\n]*)", image))
    if versions != {WHATSMEOW.encode()}:
        found = ", ".join(sorted(version.decode(errors="replace") for version in versions)) or "none"
        raise _other_library(f"it holds whatsmeow {found}, expected {WHATSMEOW}")
    machine, segment = _executable(image)
    for switch in SWITCHES:
        yield from _patches(image, segment, switch, machine)


def _executable(image: mmap.mmap) -> tuple[int, _Segment]:
    """Return the architecture and the code segment of an ELF file."""
    magic, machine, headers, size, count = struct.unpack_from("<6s12xH12xQ14xHH", image)
    if magic != b"\x7fELF\x02\x01":
        raise _other_library("it is not an ELF file of 64 bits")
    load, executable = 1, 1
    segments = []
    for at in range(headers, headers + count * size, size):
        kind, flags, start, address, length = struct.unpack_from("<IIQQ8xQ", image, at)
        if kind == load and flags & executable:
            segments.append(_Segment(start, start + length, address))
    if len(segments) != 1:
        raise _other_library(f"it has {len(segments)} executable segments, expected 1")
    return machine, segments[0]


def _patches(image: mmap.mmap, segment: _Segment, switch: Switch, machine: int) -> Iterator[Patch]:
    code = switch.code.get(machine)
    if code is None:
        raise SwitchError(f"{switch.name}: it is not known how to turn it on for processors of ELF's kind {machine}")
    pattern = re.compile(code.reader, re.DOTALL)
    readers = [match.start() for match in pattern.finditer(image, segment.start, segment.end)]
    if len(readers) != code.readers:
        raise _other_library(f"{switch.name}: {len(readers)} instructions read its field, expected {code.readers}")
    for function, text in code.sites.items():
        lead, signature = _signature(text)
        found = [match for at in readers if (match := signature.match(image, at - lead, segment.end))]
        if len(found) != 1:
            raise _other_library(f"{switch.name}: {function} was found {len(found)} times, expected 1")
        (match,) = found
        address = match.start() - segment.start + segment.address
        yield Patch(switch, function, address, match.group(), match.start(1) - match.start(), code.on)


def _signature(text: str) -> tuple[int, re.Pattern[bytes]]:
    """Return the number of bytes before the reader, and an expression whose group matches the bytes to replace."""
    before, _, after = text.partition("|")
    signs = {"??": b".", "[": b"(", "]": b")"}
    tokens = re.findall(r"[0-9a-f]{2}|\?\?|\[|\]", before + after)
    expression = b"".join(signs.get(token) or re.escape(bytes.fromhex(token)) for token in tokens)
    return len(before.split()), re.compile(expression, re.DOTALL)


def turn_on(patches: Iterable[Patch], base: int, *, restored: bool) -> None:
    """Change the library that is loaded at `base`; skip what is changed already. Raise SwitchError if that fails."""
    for patch in patches:
        if restored or not patch.switch.only_restored:
            _apply(patch, base + patch.address)


def _apply(patch: Patch, address: int) -> None:
    seen = own_code.read(address, len(patch.off))
    if seen == patch.on:
        return
    if seen != patch.off:
        raise _other_library(f"{patch.switch.name}: the code of {patch.function} is not what it was in the file")
    try:
        own_code.write(address + patch.start, patch.replacement)
    except OSError as error:
        raise SwitchError(
            f"{patch.switch.name}: this system lets no process change its own code ({error}). "
            "A session needs one of the two: look at seccomp, SELinux and the container's runtime"
        ) from error
    if own_code.read(address, len(patch.off)) != patch.on:
        raise SwitchError(f"{patch.switch.name}: {patch.function} does not read as it was written")


def _other_library(what: str) -> SwitchError:
    # Imported here, because it is large and only this error needs it.
    from importlib import metadata  # noqa: PLC0415

    try:
        installed = metadata.version("neonize")
    except metadata.PackageNotFoundError:
        installed = "(not installed)"
    return SwitchError(
        f"{what}; neonize {installed} has another whatsmeow than this release was built for. "
        f"No session is started. Install neonize=={NEONIZE} (pip install --force-reinstall neonize=={NEONIZE})"
    )
