"""Where events go: every one is counted and written. Nobody else knows that metrics and the log listen."""

from relayd import maillog, metrics
from relayd.rules.events import Event


def emit(event: Event) -> None:
    """Count it and write it."""
    metrics.record(event)
    maillog.record(event)
