"""The test's end of a neonize client process: commands in, events out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_MARK = b"event "
_PATIENCE = 20.0


class CallFailed(Exception):
    """A method of neonize's client raised; the text names the error."""


class ClientProcess:
    """A running neonize client. Events are kept until somebody waits for them, so none is missed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())
        self.events: list[dict[str, Any]] = []
        self._ended = False

    @classmethod
    async def start(cls, store: Path, environment: dict[str, str]) -> ClientProcess:
        """Start a client with this store file."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.e2e.neonize_client", str(store)),
            cwd=_ROOT,
            env={**os.environ, **environment, "PYTHONPATH": str(_ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return cls(process)

    async def expect(self, event: str, timeout: float = _PATIENCE, **fields: object) -> dict[str, Any]:
        """Wait for an event with these fields; it is taken out, so that a second one can be waited for."""
        wanted = {"event": event, **fields}
        return await self._take(lambda seen: wanted.items() <= seen.items(), timeout, str(wanted))

    async def expect_one_of(self, *events: str, timeout: float = _PATIENCE) -> dict[str, Any]:
        """Wait for whichever of these events comes first."""
        return await self._take(lambda seen: seen["event"] in events, timeout, " or ".join(events))

    async def _take(self, is_wanted: Callable[[dict[str, Any]], bool], timeout: float, what: str) -> dict[str, Any]:
        async with self._changed:
            try:
                async with asyncio.timeout(timeout):
                    while True:
                        for index, seen in enumerate(self.events):
                            if is_wanted(seen):
                                return self.events.pop(index)
                        if self._ended:
                            raise AssertionError(f"client ended before {what}; it told {self.events}")
                        await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"waited {timeout} s for {what}; the client told {self.events}") from None

    def has_told(self, event: str) -> bool:
        """Whether such an event is there now and nobody has taken it."""
        return any(seen["event"] == event for seen in self.events)

    async def command(self, command: str, **arguments: object) -> None:
        """Tell the client to do something."""
        if self._process.stdin is None:
            raise RuntimeError("the client has no input")
        self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()

    async def send(self, to: str, text: str) -> str:
        """Send a text; the message's id once the server has acknowledged it."""
        await self.command("send", to=to, text=text)
        return str((await self.expect("sent"))["id"])

    async def call(self, method: str, *arguments: object) -> Any:
        """Call a method of neonize's client; its result as JSON (tests/e2e/neonize_calls.py). Raise CallFailed."""
        await self.command("call", method=method, arguments=arguments)
        answer = await self.expect_one_of("called", "command-failed")
        if "result" not in answer:
            raise CallFailed(answer.get("error") or answer["text"])
        return answer["result"]

    async def kill(self) -> None:
        """End the process as a crash would."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the client has no output")
        while line := await self._process.stdout.readline():
            if line.startswith(_MARK):
                async with self._changed:
                    self.events.append(json.loads(line.removeprefix(_MARK)))
                    self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
