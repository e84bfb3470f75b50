"""The chores that read what comes back."""

from datetime import timedelta

from relayd.config.settings import Settings
from relayd.daemon.gmail import Tokens
from relayd.daemon.inboxes import Inboxes
from relayd.daemon.reporting import emit
from relayd.intake.return_paths import ReturnPaths
from relayd.seal import Seal
from relayd.store.pool import Database
from relayd.upkeep.prune_reports import prune_reports
from relayd.upkeep.pull_reports import PullTerms, pull_reports
from relayd.upkeep.runner import Chore
from relayd.upkeep.settle_reports import settle_reports

SETTLE_SECONDS = 2.0
PULL_SECONDS = 10.0
PRUNE_SECONDS = 3600.0


def report_chores(database: Database, seal: Seal, tokens: Tokens, settings: Settings) -> list[Chore]:
    """What this node does of it while it holds the cluster's upkeep lock."""
    subject_of = ReturnPaths(database, seal).subject_of
    days = settings.suppression.hard_bounce_days
    pull = PullTerms(
        every_seconds=settings.reports.pull_seconds,
        most_octets=settings.reports.max_octets,
        max_waiting=settings.reports.max_waiting,
    )
    open_inbox = Inboxes(database, seal, tokens).open
    age = timedelta(days=settings.reports.retention_days)
    return [
        Chore(
            "settle_reports",
            SETTLE_SECONDS,
            lambda: settle_reports(database, subject_of, suppression_days=days, emit=emit),
        ),
        Chore("pull_reports", PULL_SECONDS, lambda: pull_reports(database, open_inbox, pull, emit=emit)),
        Chore("prune_reports", PRUNE_SECONDS, lambda: prune_reports(database, age)),
    ]
