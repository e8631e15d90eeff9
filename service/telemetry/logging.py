"""Logs: JSON lines in production, readable ones in development. Ours and every library's go through one redaction."""

import logging
import sys
from typing import Any, TextIO

import structlog

from service.telemetry.redaction import redact

_SHARED: list[Any] = [
    # session_id, node and whatever else was bound for this call or task.
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logging(*, level: str, readable: bool, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's logs to one place; to be called once, before anything is logged."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Or loggers that modules made while they were imported would keep the settings of before.
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
    # aiohttp writes a stack trace, and what was sent, for every stranger who does not speak HTTP.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # So does gRPC, twice, for a header that is not text, with the header.
    logging.getLogger("grpc._cython.cygrpc").filters = [_is_no_header]
    # These tell at info what our own lines tell better.
    for noisy in ("aiohttp.access", "asyncio", "grpc"):
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))


def _is_no_header(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding on")


def _rendering(stream: TextIO, *, readable: bool) -> list[Any]:
    # Tracebacks become text before the redaction, which could not see into them otherwise.
    last: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if readable else structlog.processors.JSONRenderer()
    )
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact,
        last,
    ]
