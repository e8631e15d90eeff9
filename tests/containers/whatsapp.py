"""The simulated WhatsApp in a container of its own, which stays while everything else comes and goes."""

import asyncio
import ipaddress
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from simulator.control import SimulatorControl
from tests.containers.engine import CommandFailed, docker
from tests.containers.images import WHATSAPP
from tests.service_process import ROOT, free_port

NAME = "zap-container-test-whatsapp"
START = 30.0
"""Seconds until it says where it is."""


@dataclass(frozen=True)
class Whatsapp:
    """Where it is, and what the overlay has to know of it."""

    control: SimulatorControl
    environment: dict[str, str]


@asynccontextmanager
async def whatsapp() -> AsyncIterator[Whatsapp]:
    """While the context lasts. It is on the host's network, where every bridge's containers reach it."""
    gateway = await _gateway()
    with tempfile.TemporaryDirectory(prefix="zap-simulator-") as name:
        folder = Path(name)
        # Another user reads it, in a container.
        folder.chmod(0o755)
        shutil.copy(ROOT / "simulator/preload.py", folder / "simulated_whatsapp.py")
        with suppress(CommandFailed):  # there is none
            await docker("rm", "--force", NAME)
        where = {"listen": "127.0.0.1", "proxy-listen": gateway, "control": "127.0.0.1"}
        addresses = [part for what, host in where.items() for part in (f"--{what}", f"{host}:{free_port()}")]
        options = ("--detach", "--name", NAME, "--network", "host", "--user", "0:0", "--volume", f"{folder}:/trust")
        await docker("run", *options, WHATSAPP, "--directory", "/trust", *addresses)
        try:
            said = json.loads(await _first_line())
            (folder / "ca.pem").chmod(0o644)
            environment = {
                "SIMULATOR_PROXY": said["proxy"],
                "SIMULATOR_NOISE_ROOT": said["noise_root"],
                "SIMULATOR_FOLDER": str(folder),
            }
            async with SimulatorControl(said["control"]) as control:
                yield Whatsapp(control, environment)
        finally:
            await docker("rm", "--force", NAME)


async def _gateway() -> str:
    """This machine's address on the engine's own bridge."""
    known = json.loads(await docker("network", "inspect", "bridge", "--format", "{{json (index .IPAM.Config 0)}}"))
    # Old engines do not name it. It is the first one.
    return str(known.get("Gateway") or ipaddress.ip_network(known["Subnet"])[1])


async def _first_line() -> str:
    deadline = time.monotonic() + START
    while not (said := await docker("logs", NAME)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the simulated WhatsApp did not start within {START} s")
        await asyncio.sleep(0.1)
    return said.splitlines()[0]
