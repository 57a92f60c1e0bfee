"""The broker's log: one line an event, as text or JSON, with a level and a bound on each event's rate.

An event has a name in snake case and fields, not a sentence: names can be searched, counted and alerted on. The
standard `logging` module carries it, so a program that embeds a broker decides itself where lines go.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, Final, TextIO

EVENTS_PER_SECOND_MAX: Final = 20
"""Lines of one event in one second; the next line after a gap says how many were left out."""

_FIELDS: Final = "ottla_fields"


class EventLog:
    """The events of one part of the broker."""

    __slots__ = ("_logger", "_windows")

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"ottla.broker.{part}")
        self._windows: dict[str, list[int]] = {}  # event -> [second, lines in it, lines left out since the last line]

    def debug(self, event: str, **fields: Any) -> None:
        self._emit(logging.DEBUG, event, fields, None)

    def info(self, event: str, **fields: Any) -> None:
        self._emit(logging.INFO, event, fields, None)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit(logging.WARNING, event, fields, None)

    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """An event that somebody should look at; `error` adds its traceback."""
        self._emit(logging.ERROR, event, fields, error)

    def _emit(self, level: int, event: str, fields: dict[str, Any], error: BaseException | None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        second = time.monotonic_ns() // 1_000_000_000
        window = self._windows.setdefault(event, [second, 0, 0])
        if window[0] != second:
            window[0], window[1] = second, 0
        window[1] += 1
        if window[1] > EVENTS_PER_SECOND_MAX:
            window[2] += 1
            return
        if window[2]:
            fields["left_out"] = window[2]
            window[2] = 0
        if error is not None:
            fields["error"] = f"{type(error).__name__}: {error}"
            fields["traceback"] = "".join(traceback.format_exception(error))
        self._logger.log(level, event, extra={_FIELDS: fields})


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _text(value: Any) -> str:
    text = str(value)
    if not text or any(c in text for c in ' "=') or not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return text


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO listener_opened host=127.0.0.1 port=9092`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, _FIELDS, {})
        parts = [_timestamp(record), record.levelname, record.getMessage()]
        return " ".join(parts + [f"{name}={_text(value)}" for name, value in fields.items()])


class JsonFormatter(logging.Formatter):
    """The same as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, _FIELDS, {})
        head = {"time": _timestamp(record), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(head | fields, default=str)


def configure_logging(*, level: str, as_json: bool, stream: TextIO | None = None) -> None:
    """Send the broker's events to `stream` (standard error). For programs of our own; embedders leave it out.

    Args:
        level: A name of the standard levels, in any case.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logger = logging.getLogger("ottla")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
