"""The container engine and Compose, by their own commands: what people type is what is tried."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class CommandFailed(Exception):
    """A command ended with an error; the message has what it said."""


async def run(*command: str, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
    """Its standard output. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **(environment or {})},
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        said = (err or out).decode(errors="replace").strip()
        raise CommandFailed(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return out.decode(errors="replace").strip()


async def docker(*arguments: str) -> str:
    """What `docker …` prints. Raises CommandFailed."""
    return await run("docker", *arguments)


async def inspect(*names: str) -> Sequence[Mapping[str, Any]]:
    """All that the engine knows of containers or images."""
    answer: Sequence[Mapping[str, Any]] = json.loads(await docker("inspect", *names))
    return answer


async def why_not() -> str:
    """Why there is no container engine to use; empty if there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    try:
        await docker("version", "--format", "{{.Server.Version}}")
    except CommandFailed as error:
        return str(error)
    return "" if await compose_command() else "neither `docker compose` nor docker-compose is installed"


async def compose_command() -> Sequence[str]:
    """The newer one if it is there; empty if there is none."""
    try:
        await docker("compose", "version")
    except CommandFailed:
        return ("docker-compose",) if shutil.which("docker-compose") else ()
    return ("docker", "compose")


class Compose:
    """A project of some compose files."""

    def __init__(
        self, command: Sequence[str], project: str, files: Sequence[Path], environment: dict[str, str]
    ) -> None:
        self.project = project
        self.environment = environment
        """For what the files leave open."""
        self._command = command
        self._files = files

    async def __call__(self, *arguments: str) -> str:
        """What it prints. Raises CommandFailed."""
        files = [part for file in self._files for part in ("--file", str(file))]
        return await run(
            *self._command, "--project-name", self.project, *files, *arguments, environment=self.environment
        )

    async def containers(self, service: str) -> Sequence[str]:
        """The ids of a service's containers that run."""
        labels = {"project": self.project, "service": service}
        chosen = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        listed = await docker("ps", "--no-trunc", "--quiet", *chosen)
        return listed.split()
