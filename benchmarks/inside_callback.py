"""What benchmarks/watch.py has each session process do, by way of its preload: say when the library called back.

Texts that are to be timed say so; the process writes down each with the time (time.time()) at which its callback began.
"""

import os
import re
import threading
import time
from collections.abc import Iterable
from typing import Any

from service.worker.process import frame_writer
from service.worker.session import client
from simulator.preload import aim
from zap.worker.v1 import frames_pb2

FOLDER = "BENCHMARK_FOLDER"
TIMED = re.compile(rb"timed [0-9]+")

_now = threading.local()


def note_callbacks() -> None:
    """The preload."""
    aim()
    notes = os.open(f"{os.environ[FOLDER]}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    dispatch, commit = client.Client._dispatch, frame_writer.FrameWriter.commit

    def note_beginning(self: client.Client, binary: int, size: int, code: int) -> None:
        _now.began = time.time()
        dispatch(self, binary, size, code)

    def note_texts(self: frame_writer.FrameWriter, frames: Iterable[frames_pb2.Frame]) -> None:
        frames = tuple(frames)
        commit(self, frames)
        # Afterwards: writing it down must not be measured.
        for frame in frames:
            if text := TIMED.search(frame.SerializeToString()):
                os.write(notes, b"%s %.6f\n" % (text[0], _now.began))

    _replace(client.Client, "_dispatch", note_beginning)
    _replace(frame_writer.FrameWriter, "commit", note_texts)


def _replace(kind: type, name: str, function: Any) -> None:
    setattr(kind, name, function)
