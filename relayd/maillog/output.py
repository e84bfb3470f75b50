"""Where lines go, and the standard library's loggers brought into the same form.

A line that cannot be written is dropped: a full disk or a closed pipe must not stop mail.
"""

import io
import logging
import re
import time
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

from relayd.maillog import lines

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "logfmt"]

MAX_LINE = 16_000
_MAX_TEXT = 2000
_MAX_TRACEBACK = 8000

# A DSN in an exception's text.
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s@]*@")


def configure(level: Level, format: Format, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
    """Send events and the standard library's log to `stream`. May be called again, for another level."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sink = _Sink(stream)
    lowest = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[_form(lines.logfmt if format == "logfmt" else lines.jsonl, clock)],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # or a change of level would not reach those who have a logger
    )
    root = logging.getLogger()
    root.handlers = [Bridge()]
    # Libraries tell more at lower levels than may be written: aiosmtpd logs whole AUTH commands.
    root.setLevel(max(logging.WARNING, lowest))
    logging.getLogger("relayd").setLevel(lowest)
    logging.captureWarnings(True)


class Bridge(logging.Handler):
    """The standard library's records as lines of the same log: event `log`, with the logger's name."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, traceback and all."""
        told: dict[str, str] = {"logger": record.name, "message": lines.cut(_redact(_message(record)), _MAX_TEXT)}
        if record.exc_info and record.exc_info[1]:
            # Without the frames' variables: they hold messages and secrets.
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            told["traceback"] = lines.cut(_redact(trace.rstrip()), _MAX_TRACEBACK)
        structlog.get_logger().log(_standard(record.levelno), "log", **told)


class _Sink:
    """What structlog calls when a line is ready: a method a level."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it has been closed
            pass

    debug = info = warning = error = critical = write


def _form(
    render: Callable[[MutableMapping[str, Any]], str], clock: Callable[[], float]
) -> Callable[[Any, str, MutableMapping[str, Any]], str]:
    def form(_: Any, level: str, fields: MutableMapping[str, Any]) -> str:
        when = lines.rfc3339(datetime.fromtimestamp(clock(), UTC))
        told = {"time": when, "level": level, "event": fields.pop("event"), **fields}
        line = render(told)
        if len(line) <= MAX_LINE:
            return line
        # Looked at afterwards, since it is rare and each field would cost.
        return render(
            {key: lines.cut(each, _MAX_TEXT) if isinstance(each, str) else each for key, each in told.items()}
        )

    return form


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # Arguments that do not fit the text are a bug of the caller; its text is better than nothing.
        return str(record.msg)


def _redact(text: str) -> str:
    return _URL_PASSWORD.sub(r"\1…@", text)


def _standard(level: int) -> int:
    return min(max(level // 10 * 10, logging.DEBUG), logging.CRITICAL)
