"""The chores that read what comes back. They may take long, so they run beside the others."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from relayd.config.settings import Settings
from relayd.daemon.gmail import Tokens
from relayd.daemon.inboxes import Inboxes
from relayd.daemon.reporting import emit
from relayd.intake.return_paths import ReturnPaths
from relayd.seal import Seal
from relayd.store.pool import Database
from relayd.upkeep.aside import Aside
from relayd.upkeep.prune_reports import prune_reports
from relayd.upkeep.pull_reports import PullTerms, pull_reports
from relayd.upkeep.runner import Chore
from relayd.upkeep.settle_reports import settle_reports

SETTLE_SECONDS = 2.0
PULL_SECONDS = 10.0
PRUNE_SECONDS = 3600.0


def report_chores(database: Database, seal: Callable[[], Seal], tokens: Tokens, settings: Settings) -> list[Chore]:
    """What this node does of it while it holds the cluster's upkeep lock."""

    def subject_of(address: str) -> UUID | None:
        # By the keys of now: a reload may have brought others.
        return ReturnPaths(database, seal()).subject_of(address)

    days = settings.suppression.hard_bounce_days
    settling = Aside(
        "settle_reports",
        lambda: settle_reports(database, subject_of, suppression_days=days, emit=emit),
    )
    pull = PullTerms(
        every_seconds=settings.reports.pull_seconds,
        most_octets=settings.reports.max_octets,
        max_waiting=settings.reports.max_waiting,
    )
    open_inbox = Inboxes(database, seal, tokens).open
    pulling = Aside("pull_reports", lambda: pull_reports(database, open_inbox, pull, emit=emit))
    age = timedelta(days=settings.reports.retention_days)
    return [
        Chore("settle_reports", SETTLE_SECONDS, settling.begin),
        Chore("pull_reports", PULL_SECONDS, pulling.begin),
        Chore("prune_reports", PRUNE_SECONDS, lambda: prune_reports(database, age)),
    ]
