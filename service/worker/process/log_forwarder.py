"""Forwards log lines (Go's and Python's) to the node, redacted, without ever waiting for it."""

import logging
from collections.abc import Callable

from service.worker.process.redaction import redact
from zap.worker.v1 import frames_pb2

_LEVELS = {"INFO": "info", "WARN": "warning", "WARNING": "warning", "CRITICAL": "error"}


class LogForwarder:
    """Sends log lines; after a loss, the next line that is sent says how many were dropped."""

    def __init__(self, offer: Callable[[frames_pb2.Frame], bool]) -> None:
        self._offer = offer
        self._dropped = 0

    def write(self, level: str, logger: str, message: str) -> None:
        """Send a line without waiting; drop it if the node does not read. Debug lines are always dropped."""
        if level.upper() == "DEBUG":
            # The library's debug lines contain whole stanzas, with names and parts of codes that no pattern matches.
            return
        # The count comes first, because the end of a long line is cut.
        dropped = f"({self._dropped} lines before this one were dropped) " if self._dropped else ""
        line = frames_pb2.LogLine(
            level=_LEVELS.get(level.upper(), "error"), logger=redact(logger), message=dropped + redact(message)
        )
        if self._offer(frames_pb2.Frame(log_line=line)):
            self._dropped = 0
        else:
            self._dropped += 1

    def take_over_logging(self) -> None:
        """Forward the lines of Python's root logger, instead of what neonize does at import: to write all to stderr."""
        logging.root.handlers[:] = [_Handler(self)]
        logging.root.setLevel(logging.INFO)


class _Handler(logging.Handler):
    def __init__(self, forwarder: LogForwarder) -> None:
        super().__init__(logging.INFO)
        self._forwarder = forwarder

    def emit(self, record: logging.LogRecord) -> None:
        self._forwarder.write(record.levelname, record.name, self.format(record))
