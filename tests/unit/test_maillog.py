import io
import json
import logging
import re
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from relayd import maillog
from relayd.maillog.events import level_of
from relayd.maillog.output import MAX_LINE
from relayd.rules.relay_events import Accepted, AttemptEnded, AttemptStarted, BatchCommitted, Rejected
from relayd.rules.session_events import AuthenticationFailed, Refused, SessionOpened
from tests.sample_events import KINDS, QUEUE_ID, sample

NOON = datetime(2026, 1, 31, 12, 0, 0, 7000, UTC).timestamp()
NASTY = [
    "\r\n250 ok",
    "a\nevent=accepted queue_id=forged",
    'quote" level=error x="',
    "back\\slash",
    "\x1b[2J\x1b]0;owned\x07",
    "\x00nul",
    "\x7fdel\x85nel",
    "\u2028line\u2029paragraph",
    "\u202egnp.exe",
    "\u200bzero width",
    "\ud800surrogate",
    "\U000e0001tag",
    "='a b'=",
    "",
]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes; what configure() changes is put back."""
    root, ours, showwarning = logging.getLogger(), logging.getLogger("relayd"), warnings.showwarning
    kept = root.handlers, root.level, ours.level, structlog.get_config()
    yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers = kept[0]
    root.setLevel(kept[1])
    ours.setLevel(kept[2])
    structlog.configure(**kept[3])
    warnings.showwarning = showwarning


def configure(stream: io.StringIO, level: maillog.Level = "debug", format: maillog.Format = "logfmt") -> None:
    maillog.configure(level, format, lambda _, line: print(line, file=stream), clock=lambda: NOON)


def read_logfmt(line: str) -> dict[str, str]:
    """As strict as a machine that trusts the quoting."""
    pairs = re.findall(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)', line)
    assert " ".join(f"{key}={value}" for key, value in pairs) == line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


@pytest.mark.parametrize("format", ["logfmt", "json"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_event_makes_one_line_with_all_its_fields(
    stream: io.StringIO, kind: type, format: maillog.Format
) -> None:
    configure(stream, format=format)
    event = sample(kind)
    maillog.record(event)
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line) if format == "json" else read_logfmt(line)
    assert list(told)[:3] == ["time", "level", "event"]
    assert told["time"] == "2026-01-31T12:00:00.007Z"
    assert told["level"] == logging.getLevelName(level_of(event)).lower()
    assert set(told) == {"time", "level", "event", *kind.__dataclass_fields__}
    if "queue_id" in told:
        assert list(told)[3] == "queue_id" and told["queue_id"] == str(QUEUE_ID)


def test_an_attempt_reads_well(stream: io.StringIO) -> None:
    configure(stream)
    event = sample(AttemptStarted, recipient="you@example.net", upstream="main", attempt=2)
    maillog.record(event)
    assert stream.getvalue() == (
        f"time=2026-01-31T12:00:00.007Z level=debug event=attempt_started queue_id={QUEUE_ID} entry_id={QUEUE_ID}"
        " recipient=you@example.net upstream=main attempt=2\n"
    )


def test_numbers_times_and_nothing(stream: io.StringIO) -> None:
    configure(stream, format="json")
    when = datetime(2026, 1, 31, 23, 59, 59, 999999, UTC)
    maillog.record(sample(AttemptEnded, next_attempt_at=when))
    maillog.record(sample(AttemptEnded, next_attempt_at=None))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["next_attempt_at"], first["seconds"], first["attempt"]) == ("2026-01-31T23:59:59.999Z", 0.25, 3)
    assert "next_attempt_at" not in second


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (sample(Accepted), logging.INFO),
        (sample(AttemptEnded, outcome="sent"), logging.INFO),
        (sample(AttemptEnded, outcome="deferred"), logging.INFO),
        (sample(AttemptEnded, outcome="failed"), logging.WARNING),
        (sample(AttemptEnded, outcome="uncertain"), logging.WARNING),
        (sample(Refused, number=None), logging.WARNING),
        (sample(Refused), logging.DEBUG),
        (sample(Rejected), logging.WARNING),
        (sample(AuthenticationFailed), logging.WARNING),
        (sample(SessionOpened), logging.DEBUG),
        (sample(BatchCommitted), logging.DEBUG),
    ],
)
def test_levels(event: object, level: int) -> None:
    assert level_of(event) == level  # type: ignore[arg-type]


def test_the_level_filters_and_can_be_changed(stream: io.StringIO) -> None:
    configure(stream, "info")
    maillog.record(sample(SessionOpened))
    logging.getLogger("relayd.delivery").debug("quiet")
    assert stream.getvalue() == ""
    configure(stream, "debug")
    maillog.record(sample(SessionOpened))
    logging.getLogger("relayd.delivery").debug("loud")
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize("format", ["logfmt", "json"])
@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("kind", KINDS)
def test_no_peer_can_forge_a_line_or_reach_the_terminal(
    stream: io.StringIO, kind: type, text: str, format: maillog.Format
) -> None:
    configure(stream, format=format)
    maillog.record(sample(kind, text=text))
    line = stream.getvalue()
    assert line.endswith("\n") and line[:-1].isprintable()
    told = json.loads(line) if format == "json" else read_logfmt(line[:-1])
    hints = kind.__dataclass_fields__
    assert set(told) == {"time", "level", "event", *hints}
    texts = [told[name] for name, each in hints.items() if each.type in (str, "str")]
    assert all(each == text for each in texts)


def test_letters_beyond_ascii_stay_readable(stream: io.StringIO) -> None:
    configure(stream)
    maillog.record(sample(AttemptStarted, recipient="jörg@例え.jp"))
    assert "jörg@例え.jp" in stream.getvalue()


@pytest.mark.parametrize("format", ["logfmt", "json"])
@pytest.mark.parametrize("name", ["asyncio", "mail.log", "aiosmtplib", "aiohttp.server", "relayd.delivery.scheduler"])
def test_the_standard_librarys_log_is_the_same_log(stream: io.StringIO, name: str, format: maillog.Format) -> None:
    configure(stream, format=format)
    logging.getLogger(name).error("lost %s\nlevel=info", "it")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line) if format == "json" else read_logfmt(line)
    assert told == {
        "time": "2026-01-31T12:00:00.007Z",
        "level": "error",
        "event": "log",
        "logger": name,
        "message": "lost it\nlevel=info",
    }


def test_a_traceback_is_one_line_without_the_frames_variables(stream: io.StringIO) -> None:
    configure(stream)
    password = "canary-" + uuid.uuid4().hex
    try:
        int("x\ny")
    except ValueError:
        logging.getLogger("relayd.x").exception("a bug")
    (line,) = stream.getvalue().splitlines()
    told = read_logfmt(line)
    assert told["traceback"].startswith("Traceback (most recent call last):\n")
    assert told["traceback"].endswith("ValueError: invalid literal for int() with base 10: 'x\\ny'")
    assert password not in line


def test_passwords_in_addresses_of_servers_are_not_written(stream: io.StringIO) -> None:
    configure(stream)
    try:
        raise RuntimeError("cannot open postgresql://relayd:canary-secret@db.example/relayd")
    except RuntimeError:
        logging.getLogger("relayd.x").exception("tried postgresql://relayd:canary-secret@db.example/relayd")
    assert "canary" not in stream.getvalue()
    assert "@db.example/relayd" in stream.getvalue()


def test_libraries_do_not_tell_what_clients_say(stream: io.StringIO) -> None:
    configure(stream, "debug")
    logging.getLogger("mail.log").info("%r Data: %r", ("192.0.2.1", 1), b"AUTH PLAIN canary")
    logging.getLogger("asyncio").debug("canary")
    assert stream.getvalue() == ""


def test_a_library_cannot_make_a_line_without_end(stream: io.StringIO) -> None:
    configure(stream)
    logging.getLogger("relayd.x").error("start" + "x" * 1_000_000 + "end")
    logging.getLogger("relayd.x").error("\x1b" * 1_000_000)
    maillog.record(sample(Accepted, message_id="\x00" * 1_000_000))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 3 * MAX_LINE for line in lines)
    assert read_logfmt(lines[0])["message"].endswith("xend")


@pytest.mark.parametrize("arguments", [("%s and %s", "one"), ("%d", "x")])
def test_arguments_that_do_not_fit_are_still_told(stream: io.StringIO, arguments: tuple[str, ...]) -> None:
    configure(stream)
    logging.getLogger("relayd.x").error(*arguments)
    assert read_logfmt(stream.getvalue()[:-1])["message"] == arguments[0]


def test_odd_levels_and_warnings_are_told(stream: io.StringIO) -> None:
    configure(stream)
    logging.getLogger("relayd.x").log(35, "odd")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    odd, old = [read_logfmt(line) for line in stream.getvalue().splitlines()]
    assert (odd["level"], odd["message"]) == ("warning", "odd")
    assert old["logger"] == "py.warnings"


@pytest.mark.parametrize("library", ["urllib3.connectionpool", "google.auth", "requests", "aiohttp.client", "asyncpg"])
def test_a_library_that_would_log_whole_requests_is_not_heard_at_any_level(library: str, stream: io.StringIO) -> None:
    configure(stream)
    assert logging.getLogger("relayd.anything").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger(library).isEnabledFor(logging.INFO)
