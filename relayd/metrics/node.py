"""What is no event: the node's workers, and what a scrape reads from the database."""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

import relayd
from relayd.rules.breaker import BreakerState
from relayd.store.gauges import Gauges

BREAKER_VALUES = {BreakerState.CLOSED: 0, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 2}


@dataclass(slots=True)
class NodeState:
    """What the page shows of the node. The supervisor keeps it."""

    workers_ready: Callable[[], int]
    workers_wanted: Callable[[], int]
    key_fits: bool = True
    started_at: float = field(default_factory=time.time)

    def note_key(self, fits: bool) -> None:
        """Whether the node's sealing key is the database's."""
        self.key_fits = fits

    def families(self) -> Iterator[Metric]:
        """Build and workers."""
        build = GaugeMetricFamily("relayd_build_info", "The running version; always 1", labels=["version", "python"])
        build.add_metric([relayd.__version__, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily("relayd_start_time_seconds", "When the supervisor started", value=self.started_at)
        yield GaugeMetricFamily("relayd_workers", "Workers that are ready", value=self.workers_ready())
        yield GaugeMetricFamily("relayd_workers_wanted", "Workers that are configured", value=self.workers_wanted())
        yield GaugeMetricFamily(
            "relayd_sealing_key_fits",
            "Whether this node has the key that the database's secrets are sealed with",
            value=float(self.key_fits),
        )


def database_families(is_up: bool, is_durable: bool | None, gauges: Gauges | None) -> Iterator[Metric]:
    """None is what could not be read just now."""
    yield GaugeMetricFamily("relayd_database_up", "Whether Postgres answers the supervisor", value=float(is_up))
    if is_durable is not None:
        yield GaugeMetricFamily(
            "relayd_database_durable",
            "Whether what Postgres commits outlives a crash, as far as its settings tell",
            value=float(is_durable),
        )
    if gauges is None:
        return
    entries = GaugeMetricFamily("relayd_queue_entries", "Live queue entries, by state", labels=["state"])
    oldest = GaugeMetricFamily(
        "relayd_queue_oldest_age_seconds", "Age of the oldest live queue entry, by state; 0 if none", labels=["state"]
    )
    for state in gauges.entries:
        entries.add_metric([state], gauges.entries[state])
        oldest.add_metric([state], gauges.oldest_age_seconds[state])
    mailboxes = GaugeMetricFamily(
        "relayd_mailboxes", "Mailboxes, by how much of their limit is used", labels=["limit_use"]
    )
    for use, count in gauges.mailboxes.items():
        mailboxes.add_metric([use], count)
    lanes = GaugeMetricFamily(
        "relayd_lanes_blocked", "Mailbox lanes whose due mail a limit or the upstream holds back", labels=["class"]
    )
    for lane_class, count in gauges.blocked_lanes.items():
        lanes.add_metric([lane_class], count)
    budgets = GaugeMetricFamily(
        "relayd_budgets", "Budgets, by whose they are and how much of them is used", labels=["kind", "limit_use"]
    )
    for (kind, use), count in gauges.budgets.items():
        budgets.add_metric([kind, use], count)
    yield GaugeMetricFamily(
        "relayd_oauth_grants_dead", "Upstreams whose grant gives no token until mended", value=gauges.dead_grants
    )
    breakers = GaugeMetricFamily(
        "relayd_upstream_breaker_state",
        "Whether upstreams are used: 0 yes, 1 not, 2 one message tries it",
        labels=["upstream"],
    )
    for upstream, breaker in gauges.breakers.items():
        breakers.add_metric([upstream], BREAKER_VALUES[breaker])
    failures = GaugeMetricFamily(
        "relayd_upstream_consecutive_failures",
        "Attempts in a row that upstreams failed, 0 after a success",
        labels=["upstream"],
    )
    for upstream, count in gauges.failures.items():
        failures.add_metric([upstream], count)
    yield from (entries, oldest, mailboxes, lanes, budgets, breakers, failures)
