"""Run a simulator: ``python -m simulator``. When it is ready it prints one line of JSON with its addresses."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from simulator.http_control import ControlInterface
from simulator.simulator import Settings, Simulator
from simulator.views import Addresses, to_json

_PARENT_CHECK_SECONDS = 0.2


def main() -> None:
    """Parse the arguments and serve until a signal stops the simulator."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _allow_many_connections()
    with contextlib.ExitStack() as cleanup:
        directory = arguments.directory or cleanup.enter_context(tempfile.TemporaryDirectory(prefix="simulator-"))
        asyncio.run(_serve(arguments, Path(directory)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    any_port = "127.0.0.1:0"
    parser.add_argument("--listen", type=_address, default=any_port, help="plain WebSocket (default %(default)s)")
    parser.add_argument("--proxy-listen", type=_address, default=any_port, help="CONNECT proxy (default %(default)s)")
    parser.add_argument("--control", type=_address, default=any_port, help="control interface (default %(default)s)")
    parser.add_argument(
        "--directory", type=Path, help="where ca.pem and noise-root.hex are written (default: temporary)"
    )
    parser.add_argument("--qr-refs", type=int, default=6, help="QR codes per client (default %(default)s)")
    parser.add_argument("--real-prekeys", action="store_true", help="make new clients upload 812 prekeys, not 50")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="stop when the process that started this is gone"
    )
    parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port")
    return host, int(port)


async def _serve(arguments: argparse.Namespace, directory: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings = Settings(arguments.listen, arguments.proxy_listen, arguments.qr_refs, not arguments.real_prekeys)
    simulator = Simulator(settings)
    await simulator.start()
    simulator.write_trust(directory)
    addresses = Addresses(
        "",
        simulator.websocket_url,
        simulator.proxy_url,
        simulator.identity.root.public.hex(),
        str(directory / "ca.pem"),
    )
    runner = web.AppRunner(ControlInterface(simulator, lambda: addresses).application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, *arguments.control)
    await site.start()
    host, port = runner.addresses[0][:2]
    addresses.control = f"http://{host}:{port}"
    sys.stdout.write(f"{json.dumps(to_json(addresses))}\n")
    sys.stdout.flush()
    watch = asyncio.create_task(_stop_with_parent(stop)) if arguments.die_with_parent else None
    await stop.wait()
    if watch is not None:
        watch.cancel()
    await simulator.stop()
    await runner.cleanup()


async def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stop when the parent process ends. PR_SET_PDEATHSIG would fire already when the parent's *thread* ends."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_CHECK_SECONDS)
    stop.set()


def _allow_many_connections() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
