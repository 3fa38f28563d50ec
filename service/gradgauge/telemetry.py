"""Log set-up: events as one JSON object per line, or readable on a terminal."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Told to libraries that log every statement or request at INFO.
QUIET = ("procrastinate", "alembic", "psycopg.pool", "uvicorn.access", "botocore")

# C0 and C1 controls, line and paragraph separators, and the bidirectional overrides: a name from
# an upload must not move the cursor or reorder a line of a terminal.
_CONTROLS = {
    point: f"\\u{point:04x}"
    for point in (
        *range(0x20),
        *range(0x7F, 0xA0),
        0x061C,
        *range(0x200E, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        0xFEFF,
    )
}


def printable(text: str) -> str:
    r"""Return `text` with control and bidirectional characters written as \uXXXX."""
    return text.translate(_CONTROLS)


def set_up(*, level: str, form: str, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's events to `stream` (stderr without one).

    `form` is "json", "console", or "auto": console where the stream is a terminal.
    """
    out = stream or sys.stderr
    as_json = form == "json" or (form == "auto" and not out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _escape,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    _route_standard_library(out, level=level, shared=shared, as_json=as_json)


def _route_standard_library(
    out: TextIO, *, level: str, shared: list[Processor], as_json: bool
) -> None:
    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    for name in QUIET:
        logging.root.manager.getLogger(name).setLevel(logging.WARNING)


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> MutableMapping[str, Any]:
    """Escape what an upload may have put into a name, at any depth; tracebacks keep their lines."""
    return {
        key: _escaped_lines(value) if key == "exception" else _escaped(value)
        for key, value in event.items()
    }


def _escaped_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value
