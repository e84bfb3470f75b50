"""The metrics of what comes back after it was sent."""

from typing import assert_never

from prometheus_client import CollectorRegistry, Counter

from relayd.rules.report_events import BouncedLater, Complained, InboxFailed, Replied, ReportEvent, ReportRead


class ReportMeter:
    """Counts reports, in a registry that it shares."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reports = Counter(
            "relayd_reports_total",
            "Bounces, complaints and answers read, by kind and status",
            ["kind", "status"],
            registry=registry,
        )
        self._bounced_later = Counter(
            "relayd_bounced_later_total",
            "Sent messages that came back, by type and category",
            ["type", "category"],
            registry=registry,
        )
        self._complaints = Counter(
            "relayd_complaints_total", "Sent messages that a reader called spam", registry=registry
        )
        self._replies = Counter("relayd_replies_total", "Sent messages that a reader answered", registry=registry)
        self._inbox_failures = Counter(
            "relayd_inbox_failures_total", "Times that a mailbox's inbox could not be read", registry=registry
        )

    def record(self, event: ReportEvent) -> None:
        """Count one event."""
        match event:
            case ReportRead():
                self._reports.labels(event.kind, event.status).inc()
            case BouncedLater():
                self._bounced_later.labels(event.bounce_type, event.category).inc()
            case Complained():
                self._complaints.inc()
            case Replied():
                self._replies.inc()
            case InboxFailed():
                self._inbox_failures.inc()
            case _:
                assert_never(event)
