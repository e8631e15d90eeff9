"""A preload that aims at the simulator, and lets a test hold the session process at its next event.

``ZAP_WORKER_PRELOAD=tests.e2e.held_events:aim``. While the file that ``HOLD_EVENTS`` names is there, the callback that
takes events from the library does not go on; it makes a second file to say so.
"""

import os
import time
from pathlib import Path
from typing import Any

from simulator import preload

PRELOAD = "tests.e2e.held_events:aim"
_VARIABLE = "HOLD_EVENTS"


class Hold:
    """The two files."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reached = file.with_suffix(".reached")

    @property
    def environment(self) -> dict[str, str]:
        """What the session processes have to know."""
        return {_VARIABLE: str(self._file)}

    @property
    def is_reached(self) -> bool:
        """Whether a process is held."""
        return self._reached.exists()

    def begin(self) -> None:
        """Hold the next event."""
        self._file.touch()

    def end(self) -> None:
        """Let events pass."""
        self._file.unlink()
        self._reached.unlink(missing_ok=True)

    def wait(self) -> None:
        """Return once events may pass. For the session process."""
        while self._file.exists():
            self._reached.touch()
            time.sleep(0.01)


def aim() -> None:
    """Aim at the simulator, and hold events when asked."""
    from service.worker.session import client  # noqa: PLC0415 - not in the test's own process: it imports neonize

    preload.aim()
    hold, take = Hold(Path(os.environ[_VARIABLE])), client.Client._on_event

    def held(*arguments: Any) -> None:
        hold.wait()
        take(*arguments)

    vars(client)["Client"]._on_event = held
