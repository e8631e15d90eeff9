"""The simulator as a process: it starts, ends, answers nonsense with errors, and survives rubbish."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from simulator.control import ControlError, SimulatorControl, wait_for
from simulator.process import SimulatorProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ROOT = Path(__file__).resolve().parents[2]
_PATCH = (
    "import sys, tests, neonize.client; from simulator.preload import aim;"
    " aim(dict([a.split('=', 1) for a in sys.argv[1:]]))"
)
_UPGRADE = (
    b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        yield running


@pytest.mark.parametrize(
    ("path", "body", "status", "part"),
    [
        ("/phones", {"pn": "+49 151"}, 400, "pn: a phone number"),
        ("/phones", {}, 400, "pn: a text is required"),
        ("/phones", [], 400, "not a JSON object"),
        ("/phones/499999999/scan", {"qr": "1,2"}, 404, "no phone has the number 499999999"),
        ("/phones/4911111/scan", {"qr": "1,2"}, 400, "at least four fields"),
        ("/phones/4911111/scan", {"qr": "a,b,c,d"}, 400, "base64"),
        ("/phones/4911111/scan", {"qr": "r" + ",AAAA" * 3}, 400, "32 bytes"),
        ("/phones/4911111/scan", {"qr": "r" + ("," + "A" * 43 + "=") * 3}, 404, "no connected client"),
        ("/phones/4911111/scan", {"qr": "x", "flaw": "ugly"}, 400, "flaw: one of none, bad-hmac"),
        ("/phones/4911111/type-code", {"code": "ABCD-EFGH"}, 404, "asks for a code"),
        ("/phones/4911111/messages", {"to": "499999999", "text": "x"}, 404, "499999999"),
        ("/phones/4911111/messages", {"to": "1@g.us", "text": "x"}, 404, "no group has the address 1@g.us"),
        ("/phones/4911111/edit", {"id": "nope", "text": "x"}, 400, "no message nope"),
        ("/phones/4911111/read", {"id": "nope"}, 400, "no message nope"),
        ("/groups", {"creator": "4911111", "subject": "x", "members": "4911111"}, 400, "members: a list of texts"),
        ("/groups", {"creator": "4911111", "subject": "x", "members": ["499999999"]}, 404, "499999999"),
        ("/faults/unreadable", {"how": "badly"}, 400, "how: one of lost, damaged"),
        ("/faults/latency", {"seconds": -1}, 400, "seconds"),
        ("/faults/refuse-connections", {"how": "rudely"}, 400, "how: one of"),
        ("/steps/nowhere/hold", {}, 400, "step: one of"),
    ],
)
async def test_nonsense_is_answered_with_what_is_wrong(
    simulator: SimulatorProcess, path: str, body: object, status: int, part: str
) -> None:
    await simulator.control.create_phone("4911111")
    async with (
        aiohttp.ClientSession() as session,
        session.post(simulator.addresses.control + path, json=body) as response,
    ):
        answer = await response.json()
        assert (response.status, part in answer["message"]) == (status, True), answer


async def test_an_unknown_device_is_a_typed_error(simulator: SimulatorProcess) -> None:
    with pytest.raises(ControlError) as caught:
        await simulator.control.device("1:1@s.whatsapp.net")
    assert (caught.value.status, caught.value.kind) == (404, "UnknownDevice")


@pytest.mark.parametrize("which", ["websocket", "proxy"])
@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\n\r\nnot tls at all" + bytes(range(256)),
        b"CONNECT elsewhere.example:443 HTTP/1.1\r\n\r\n",
        b"A" * 100_000,
        _UPGRADE + os.urandom(512),
        _UPGRADE + b"\x82\x84\x00\x00\x00\x00WA\x06\x03" + b"\x82\x85\x00\x00\x00\x00\x00\x00\x02\xff\xff",
    ],
)
async def test_rubbish_harms_nobody(simulator: SimulatorProcess, which: str, rubbish: bytes) -> None:
    address = simulator.addresses.proxy if which == "proxy" else simulator.addresses.websocket
    host, port = address.split("/")[2].split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(rubbish)
    writer.write_eof()
    writer.close()

    async def calm() -> bool | None:
        return (await simulator.control.state()).connections == 0 or None

    await wait_for(calm, 5, "the connection to be over")


async def test_it_stops_when_asked_and_leaves_nothing() -> None:
    simulator = SimulatorProcess()
    await simulator.start()
    directory = Path(simulator.addresses.ca).parent
    assert len((directory / "noise-root.hex").read_text().strip()) == 64
    await simulator.stop()
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(simulator.pid, 0)


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'simulator', '--die-with-parent', '--directory', sys.argv[1]]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode().strip(), flush=True)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path)), cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    line = (await parent.stdout.readline()).decode()
    await parent.wait()
    url = line.split('"control": "')[1].split('"')[0]

    async def gone() -> bool | None:
        async with SimulatorControl(url) as control:
            try:
                await control.state()
            except aiohttp.ClientError:
                return True
        return None

    await wait_for(gone, 5, "the simulator to be gone")


@pytest.mark.parametrize(
    ("code", "arguments", "complaint"),
    [
        ("from simulator.preload import aim; aim()", [], "must be the simulator's root key"),
        (_PATCH, ["SIMULATOR_NOISE_ROOT=00"], "64 hexadecimal digits"),
        (_PATCH, [f"SIMULATOR_NOISE_ROOT={'0' * 64}", "SIMULATOR_URL=http://x"], "must be ws://host:port"),
        (
            _PATCH,
            [f"SIMULATOR_NOISE_ROOT={'0' * 64}", f"SIMULATOR_URL=ws://{'x' * 30}"],
            "at most 30 bytes",
        ),
        (
            "from simulator.preload import aim; aim({'SIMULATOR_NOISE_ROOT': '0' * 64})",
            [],
            "is not loaded in this process",
        ),
        (
            _PATCH.replace("aim(", "import simulator.preload as p, dataclasses\n"
            "p._NOISE_ROOT = dataclasses.replace(p._NOISE_ROOT, value=b'?' * 32); aim(", 1),
            [f"SIMULATOR_NOISE_ROOT={'0' * 64}"],
            "is in 0 places of neonize's Go library, expected 1: this is written for neonize 0.5.2, installed is",
        ),
    ],
)  # fmt: skip
async def test_aiming_at_nothing_fails_loudly(code: str, arguments: list[str], complaint: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *arguments), cwd=_ROOT, stderr=asyncio.subprocess.PIPE
    )
    _out, errors = await process.communicate()
    assert process.returncode == 1
    assert complaint in errors.decode()


@pytest.mark.parametrize("offset", [None, 0])
async def test_aiming_is_quick_and_can_be_repeated(offset: int | None) -> None:
    """At the known place, and by search when the place is another."""
    moved = "" if offset is None else (
        "p._NOISE_ROOT = dataclasses.replace(p._NOISE_ROOT, file_offset=0)\n"
        "p._URL = dataclasses.replace(p._URL, file_offset=0)\n"
    )  # fmt: skip
    code = (
        "import tests, neonize.client, dataclasses, time\nimport simulator.preload as p\n"
        + moved
        + "known = p._NOISE_ROOT\n"
        "environ = {'SIMULATOR_NOISE_ROOT': '11' * 32, 'SIMULATOR_URL': 'ws://127.0.0.1:65535/ws/chat'}\n"
        "start = time.process_time(); p.aim(environ); print(time.process_time() - start)\n"
        "found = [m for m in p._library_mappings() for _ in p._occurrences(m, b'\\x11' * 32)]\n"
        "assert len(found) == 1, found\n" + ("p.aim(environ)\n" if offset is None else "")
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=_ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert float(out) < 1
