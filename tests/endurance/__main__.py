"""`make endurance`: rounds that must leave nothing, then a crowd of sessions under traffic. Exit code 1: not so."""

import argparse
import asyncio
import sys

from tests.endurance import leftovers, traffic


def main() -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="tests.endurance")
    parser.add_argument("--rounds", type=int, default=200, help="of each kind; 0: none")
    parser.add_argument("--sessions", type=int, default=50, help="under traffic; 0: none")
    parser.add_argument("--duration", type=float, default=1800.0, help="seconds of traffic")
    arguments = parser.parse_args()
    wrong = asyncio.run(_run(arguments))
    for words in wrong:
        sys.stdout.write(f"WRONG {words}\n")
    return 1 if wrong else 0


async def _run(arguments: argparse.Namespace) -> list[str]:
    wrong = await leftovers.run(arguments.rounds) if arguments.rounds else []
    if arguments.sessions:
        wrong += await traffic.run(arguments.sessions, arguments.duration)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
