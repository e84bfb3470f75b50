"""Where events go: every one is counted and written. Nobody else knows that metrics and the log listen."""

import logging
import os
import sys
import time
from functools import cache

from relayd import maillog, metrics
from relayd.config.settings import Settings
from relayd.rules.events import Event
from relayd.rules.relay_events import LogLinesDropped

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2


def emit(event: Event) -> None:
    """Count it and write it. Raises nothing: what the event tells of has happened."""
    for record in (metrics.record, _write):
        try:
            record(event)
        except Exception:
            log.exception("an event could not be recorded: %s", type(event).__name__)


def _write(event: Event) -> None:
    quota = _quota()
    for each in quota.sums():
        maillog.record(each)
    if quota.admit(event):
        maillog.record(event)


@cache
def _quota() -> maillog.PeerQuota:
    return maillog.PeerQuota(time.monotonic)


class Log:
    """The log of this process, on standard output. It keeps its writer when a reload changes level or form."""

    def __init__(self) -> None:
        descriptor = sys.stdout.fileno()
        self._writer = maillog.LineWriter(
            descriptor,
            has_priorities=maillog.is_journal(descriptor, os.environ),
            on_drop=lambda: metrics.record(LogLinesDropped(1)),
            on_resume=lambda count: maillog.record(LogLinesDropped(count)),
        )

    def configure(self, settings: Settings) -> None:
        """Write as the settings say."""
        maillog.configure(settings.log.level, settings.log.format, self._writer.write)

    def flush(self) -> None:
        """Let what was logged out before something that follows from it; not for long, if the log's reader hangs."""
        self._writer.flush(FLUSH_SECONDS)
