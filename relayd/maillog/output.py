"""Format events and the standard library's log records as lines of one log, and pass them to a writer."""

import logging
import re
import time
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import partialmethod
from typing import Any, Literal

import structlog

from relayd.maillog import lines

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "logfmt"]

MAX_LINE = 16_000
_MAX_TEXT = 2000
_MAX_TRACEBACK = 8000

# A DSN in an exception's text.
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s@]*@")


Write = Callable[[int, str], None]


def configure(level: Level, format: Format, write: Write, clock: Callable[[], float] = time.time) -> None:
    """Pass the lines of events and of the standard library's log to `write`, each with its level of `logging`.

    May be called again, for another level or form.
    """
    sink = _Sink(write)
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
    """What structlog calls when a line is ready: a method for each level."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def _pass_on(self, level: int, line: str) -> None:
        self._write(level, line)

    debug = partialmethod(_pass_on, logging.DEBUG)
    info = partialmethod(_pass_on, logging.INFO)
    warning = partialmethod(_pass_on, logging.WARNING)
    error = partialmethod(_pass_on, logging.ERROR)
    critical = partialmethod(_pass_on, logging.CRITICAL)


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
