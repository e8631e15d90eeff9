"""Runs a simulator in a separate process for the duration of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from simulator.control import SimulatorControl
from simulator.preload import NOISE_ROOT_VARIABLE, URL_VARIABLE
from simulator.views import Addresses, from_json

#: The value of ZAP_WORKER_PRELOAD.
PRELOAD = "simulator.preload:aim"

_ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


class SimulatorProcess:
    """``async with SimulatorProcess() as simulator:`` provides `control` and `addresses` inside the context."""

    def __init__(self, *arguments: str, directory: Path | None = None) -> None:
        self._arguments = arguments
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="simulator-")
        self._directory = directory or Path(self._temporary.name if self._temporary else "")
        self._process: asyncio.subprocess.Process | None = None
        self._control: SimulatorControl | None = None
        self._addresses: Addresses | None = None

    @property
    def control(self) -> SimulatorControl:
        """The control interface."""
        if self._control is None:
            raise RuntimeError("the simulator is not running")
        return self._control

    @property
    def addresses(self) -> Addresses:
        """The addresses of the simulator."""
        if self._addresses is None:
            raise RuntimeError("the simulator is not running")
        return self._addresses

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise RuntimeError("the simulator is not running")
        return self._process.pid

    def environment(self, *, through_proxy: bool = False) -> dict[str, str]:
        """Return the variables a process needs *at exec*, so that the preload aims its neonize at this simulator."""
        aimed = {NOISE_ROOT_VARIABLE: self.addresses.noise_root}
        if through_proxy:
            return aimed | {"SSL_CERT_FILE": self.addresses.ca, "HTTPS_PROXY": self.addresses.proxy}
        return aimed | {URL_VARIABLE: self.addresses.websocket}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "simulator", "--die-with-parent", "--directory", str(self._directory)),
            *self._arguments,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        if self._process.stdout is None:
            raise RuntimeError("the simulator has no output")
        line = await asyncio.wait_for(self._process.stdout.readline(), _START_SECONDS)
        if not line:
            raise RuntimeError(f"the simulator ended before it was ready, with code {await self._process.wait()}")
        self._addresses = from_json(Addresses, json.loads(line))
        self._control = SimulatorControl(self._addresses.control)

    async def stop(self) -> None:
        """Stop the process, by force if necessary."""
        if self._control is not None:
            await self._control.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()
