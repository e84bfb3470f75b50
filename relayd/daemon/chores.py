"""Which chores there are, and how often."""

from collections.abc import Callable
from datetime import timedelta

from relayd.config.settings import Settings
from relayd.daemon import house_terms, terms
from relayd.daemon.gmail import Lookers
from relayd.daemon.reporting import emit
from relayd.daemon.takeback import TakeBack
from relayd.delivery.claimer import Pace
from relayd.store.pool import Database
from relayd.upkeep.check_alignments import check_alignments
from relayd.upkeep.health import watch_health
from relayd.upkeep.mirror_usage import mirror_usage
from relayd.upkeep.move_in_pools import move_in_pools
from relayd.upkeep.prune import prune
from relayd.upkeep.release_scheduled import release_scheduled
from relayd.upkeep.resolve_uncertain import LookTerms, resolve_uncertain
from relayd.upkeep.runner import Chore
from relayd.upkeep.steer import let_go, reroute, steer
from relayd.upkeep.wake_lanes import wake_lanes
from relayd.upkeep.warm_up import warm_up_mailboxes
from relayd.upkeep.warn_of_delays import warn_of_delays

SCHEDULED_SECONDS = 1.0
POOLS_SECONDS = 2.0
REROUTE_SECONDS = 1.0
LET_GO_SECONDS = 1.0
STEER_SECONDS = 10.0
ALIGNMENT_SECONDS = 15.0
RECLAIM_SECONDS = 5.0
LOOK_SECONDS = 5.0
WAKE_SECONDS = 10.0
WARM_UP_SECONDS = 30.0
MIRROR_SECONDS = 60.0
GIVE_UP_SECONDS = 60.0
PRUNE_SECONDS = 3600.0
DELAYS_SECONDS = 30.0


def chores(
    database: Database, take_back: TakeBack, lookers: Lookers, settings: Settings, wake: Callable[[], None]
) -> list[Chore]:
    """What this node does while it holds the cluster's upkeep lock."""
    resolver = house_terms.resolver(settings)
    age = timedelta(days=settings.retention_days)
    pace = Pace(attempt_seconds=settings.delivery.attempt_seconds)
    longest_flight = timedelta(
        seconds=pace.claim_lease_seconds + pace.attempt_seconds + pace.lease_margin_seconds + RECLAIM_SECONDS
    )
    return [
        Chore("release_scheduled", SCHEDULED_SECONDS, lambda: release_scheduled(database, wake)),
        Chore("move_in_pools", POOLS_SECONDS, lambda: move_in_pools(database, emit=emit, wake=wake)),
        Chore(
            "reroute", REROUTE_SECONDS, lambda: reroute(database, longest_flight=longest_flight, emit=emit, wake=wake)
        ),
        Chore("let_go", LET_GO_SECONDS, lambda: let_go(database, wake)),
        Chore("steer", STEER_SECONDS, lambda: steer(database, wake)),
        Chore("check_alignments", ALIGNMENT_SECONDS, lambda: check_alignments(database, resolver)),
        Chore("reclaim", RECLAIM_SECONDS, take_back.of_lapsed_leases),
        Chore("give_up", GIVE_UP_SECONDS, take_back.of_overdue),
        Chore(
            "resolve_uncertain",
            LOOK_SECONDS,
            lambda: _look(database, lookers, take_back, settings, wake),
        ),
        Chore("wake_lanes", WAKE_SECONDS, lambda: wake_lanes(database, wake)),
        Chore(
            "health_and_warm_up",
            WARM_UP_SECONDS,
            # In this order: a day is judged by all that became of it.
            lambda: _look_after_mailboxes(database, settings, wake),
        ),
        Chore("mirror_usage", MIRROR_SECONDS, lambda: mirror_usage(database)),
        Chore(
            "warn_of_delays",
            DELAYS_SECONDS,
            lambda: warn_of_delays(database, take_back.bouncer, house_terms.delays(settings), emit=emit, wake=wake),
        ),
        Chore("prune", PRUNE_SECONDS, lambda: prune(database, age)),
    ]


async def _look(
    database: Database, lookers: Lookers, take_back: TakeBack, settings: Settings, wake: Callable[[], None]
) -> None:
    looking = LookTerms(terms.look_policy(settings), terms.retry_policy(settings))
    await resolve_uncertain(database, lookers.current, take_back.bouncer, looking, emit=emit, wake=wake)


async def _look_after_mailboxes(database: Database, settings: Settings, wake: Callable[[], None]) -> None:
    await watch_health(database, house_terms.health(settings), emit=emit)
    await warm_up_mailboxes(database, house_terms.warm_up(settings), emit=emit, wake=wake)
