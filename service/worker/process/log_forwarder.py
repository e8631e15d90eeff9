"""Log lines of this process, Go's and Python's, to the node: free of secrets, and dropped rather than waited for."""

import logging
from collections.abc import Callable

from service.worker.process.redaction import redact
from zap.worker.v1 import frames_pb2

_LEVELS = {"INFO": "info", "WARN": "warning", "WARNING": "warning", "CRITICAL": "error"}


class LogForwarder:
    """Sends lines, and says how many could not be sent once one can be again."""

    def __init__(self, offer: Callable[[frames_pb2.Frame], bool]) -> None:
        self._offer = offer
        self._dropped = 0

    def write(self, level: str, logger: str, message: str) -> None:
        """Send a line. Never waits, never raises."""
        if level.upper() == "DEBUG":
            # The library's hold whole stanzas: people's names, parts of codes. No shape tells those from other words.
            return
        # In front: the end of a long line is cut.
        dropped = f"({self._dropped} lines before this one were dropped) " if self._dropped else ""
        line = frames_pb2.LogLine(
            level=_LEVELS.get(level.upper(), "error"), logger=redact(logger), message=dropped + redact(message)
        )
        if self._offer(frames_pb2.Frame(log_line=line)):
            self._dropped = 0
        else:
            self._dropped += 1

    def take_over_logging(self) -> None:
        """Have Python's log lines go the same way."""
        logging.root.addHandler(_Handler(self))


class _Handler(logging.Handler):
    def __init__(self, lines: LogForwarder) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write(record.levelname, record.name, self.format(record))
