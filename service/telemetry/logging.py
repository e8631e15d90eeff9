"""Configures logs: JSON lines in production, readable ones in development, all through one redaction."""

import logging
import sys
from typing import Any, TextIO

import structlog

from service.telemetry.redaction import redact

_SHARED: list[Any] = [
    # Adds session_id, node and other keys bound for this call or task.
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logging(*, level: str, readable: bool, stream: TextIO | None = None) -> None:
    """Send the logs of structlog and of the standard library to one stream. Call it once, before anything is logged."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # A logger keeps the settings of its first use, so loggers created at import time use these.
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=_rendering(handler.stream, readable=readable), foreign_pre_chain=_SHARED
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # gRPC logs a header that is not text twice, with its value.
    logging.getLogger("grpc._cython.cygrpc").filters = [_is_not_about_header]
    # The info lines of these loggers repeat the service's own.
    for noisy in ("asyncio", "grpc"):
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))


def _is_not_about_header(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding on")


def _rendering(stream: TextIO, *, readable: bool) -> list[Any]:
    # Tracebacks become text first, because the redaction only masks text.
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if readable else structlog.processors.JSONRenderer()
    )
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact,
        renderer,
    ]
