"""What benchmarks/relay.py has each session process do, by way of its preload; nothing else may know of it.

Nothing but the standard library is imported here, and what the process has anyway: its memory is measured.
"""

import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import neonize.client

from service.worker import addresses
from service.worker.session import session
from simulator.preload import aim
from zap.worker.v1 import frames_pb2

FOLDER = "BENCHMARK_FOLDER"
QUERIES = 1000

_clients: list[Any] = []


def with_relay() -> None:
    """As always."""
    _prepare()


def without_relay() -> None:
    """The library reaches Postgres by itself: what the relay is compared with."""
    vars(session)["Relay"] = _Straight
    _prepare()


class _Straight:
    def __init__(self, database: frames_pb2.Database, *_: object) -> None:
        self._server = database.servers[0]

    def start(self) -> None:
        """Nothing to start."""

    def address(self, url: str) -> str:
        """With the server itself in it."""
        return f"{url}&host={quote(self._server.host, safe='')}&port={self._server.port}"


def _prepare() -> None:
    aim()
    original = neonize.client.NewClient.__init__

    def remember(self: Any, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        _clients.append(self)

    vars(neonize.client)["NewClient"].__init__ = remember
    threading.Thread(target=_measure_when_told, daemon=True).start()


def _measure_when_told() -> None:
    folder = Path(os.environ[FOLDER])
    # Opening it waits for the other end, and costs nothing meanwhile.
    (folder / "go").read_bytes()
    someone = addresses.from_text("491700000009@s.whatsapp.net")
    taken = []
    began = time.process_time()
    for _ in range(QUERIES):
        started = time.perf_counter()
        _clients[0].chat_settings.get_chat_settings(someone)
        taken.append(time.perf_counter() - started)
    seconds = (time.process_time() - began) / QUERIES
    result = {"median": statistics.median(taken), "cpu": seconds}
    unfinished = folder / "result.new"
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.rename(folder / "result")
