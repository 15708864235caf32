"""Logs: one line an event on stderr, JSON or text, with the service's name.

In JSON what is logged in a call also has the ids of its request and, where there is one, of its trace.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from services.common.requests import request_id_of_call
from services.common.settings import CommonSettings, effective
from services.common.trace_ids import trace_id_of_call

_TEXT = "%(asctime)s %(levelname)s %(service)s: %(message)s"


def _iso_time(formatter: logging.Formatter, record: logging.LogRecord, datefmt: str | None = None) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _traceback(formatter: logging.Formatter, ei: Any) -> str:
    """Writes where an error came about, and of what class it and its causes are.

    Not their texts: what a library says of a value may hold a person's id, or what they have seen.
    """
    chain = [ei[1]]
    while (cause := _cause(chain[-1])) is not None and cause not in chain:
        chain.append(cause)
    parts = ["".join([*traceback.format_tb(error.__traceback__), type(error).__qualname__]) for error in chain]
    return "\nwhile handling\n".join(parts)


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ if error.__suppress_context__ else error.__context__


class _TextFormatter(logging.Formatter):
    formatTime = _iso_time
    formatException = _traceback

    def __init__(self, service: str) -> None:
        super().__init__(_TEXT, defaults={"service": service})


class _JsonFormatter(JsonFormatter):
    formatTime = _iso_time
    formatException = _traceback

    def __init__(self, service: str) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"},
            static_fields={"service": service},
        )


def _is_news(record: logging.LogRecord) -> bool:
    # An answer that its caller no longer waits for: an error with a traceback to grpc.aio, once for each such call.
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


def _name_call(record: logging.LogRecord) -> bool:
    """Adds the ids of the call that a record is of; both lead from it to other services' records."""
    for name, known in (("request_id", request_id_of_call()), ("trace_id", trace_id_of_call())):
        if known and name not in vars(record):
            setattr(record, name, known)
    return True


def configure_logs(service: str, settings: CommonSettings) -> None:
    """Sends every log record of this process to stderr in the chosen format, and logs the effective settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service) if settings.log_format == "json" else _TextFormatter(service))
    handler.addFilter(_is_news)
    handler.addFilter(_name_call)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    shown = effective(settings)
    text = " ".join(f"{name}={value}" for name, value in shown.items())
    logging.getLogger(__name__).info("starting with %s", text, extra={"settings": shown})
