"""Logs: one line an event on stderr, JSON or text, with the service's name."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from pythonjsonlogger.json import JsonFormatter

from services.common.settings import CommonSettings, effective

_TEXT = "%(asctime)s %(levelname)s %(service)s: %(message)s"


def _iso_time(formatter: logging.Formatter, record: logging.LogRecord, datefmt: str | None = None) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _TextFormatter(logging.Formatter):
    formatTime = _iso_time

    def __init__(self, service: str) -> None:
        super().__init__(_TEXT, defaults={"service": service})


class _JsonFormatter(JsonFormatter):
    formatTime = _iso_time

    def __init__(self, service: str) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"},
            static_fields={"service": service},
        )


def configure_logs(service: str, settings: CommonSettings) -> None:
    """Sends every log record of this process to stderr in the chosen format, and logs the effective settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service) if settings.log_format == "json" else _TextFormatter(service))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    shown = effective(settings)
    text = " ".join(f"{name}={value}" for name, value in shown.items())
    logging.getLogger(__name__).info("starting with %s", text, extra={"settings": shown})
