"""`python -m service serve | migrate | check-config`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from service.node.config import ConfigurationError, Settings, effective, load, unknown_settings
from service.node.main import EX_CONFIG, run
from service.node.serve import serve

COMMANDS = {
    "serve": "run a node until SIGTERM or SIGINT",
    "migrate": "bring the database's schema up to date and exit",
    "check-config": "print the effective settings, without secrets, and exit",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 78 for a wrong setting, 69 for an unreachable dependency (sysexits.h)."""
    parser = argparse.ArgumentParser(prog="python -m service", description="WhatsApp sessions as a service.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, description in COMMANDS.items():
        commands.add_parser(name, help=description, description=description)
    command = parser.parse_args(arguments).command
    try:
        settings = load()
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    if command == "check-config":
        sys.stdout.write("\n".join([*effective(settings), ""]))
        for name in unknown_settings():
            sys.stderr.write(f"{name}: there is no such setting; is it misspelt?\n")
        return 0
    return run(settings, serve if command == "serve" else _migrate)


async def _migrate(settings: Settings, stopping: asyncio.Event) -> None:
    from service.node.wiring import migrate_once  # noqa: PLC0415 - `serve` must start the zygote before this import

    await migrate_once(settings, stopping)


if __name__ == "__main__":
    sys.exit(main())
