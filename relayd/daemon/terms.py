"""From settings to the values that the parts of a worker are handed."""

from datetime import timedelta

from relayd.config.settings import Settings
from relayd.control.route import Publishing
from relayd.dns.resolver import Resolver
from relayd.intake.door import DoorTerms
from relayd.rules.breaker import BreakerTerms
from relayd.rules.doubt import LookPolicy
from relayd.rules.outcome import Scope, Stage
from relayd.rules.retry import RetryPolicy
from relayd.rules.tiers import Tier, by_name
from relayd.rules.warm_up import Gate, Schedule
from relayd.store.outlook import Terms
from relayd.submission.limits import SessionLimits
from relayd.upkeep.health import HealthTerms
from relayd.upkeep.warm_up import WarmUpTerms
from relayd.upkeep.warn_of_delays import DelayTerms
from relayd.upstream.table import OperatorRule, operator_rule


def share(total: int, index: int, workers: int) -> int:
    """A worker's part of a cap that holds for the node: the parts add up to the cap, but each has at least one."""
    return max(1, total // workers + (index < total % workers))


def retry_policy(settings: Settings) -> RetryPolicy:
    """When a deferred entry is tried again."""
    return RetryPolicy(
        first_delay_seconds=settings.delivery.first_retry_seconds,
        longest_delay_seconds=settings.delivery.longest_retry_seconds,
        give_up_after_seconds=settings.delivery.give_up_after_seconds,
        max_retries=settings.delivery.max_retries,
    )


def look_policy(settings: Settings) -> LookPolicy:
    """When an attempt in doubt is looked for at its upstream."""
    return LookPolicy(
        first_seconds=settings.delivery.first_look_seconds,
        looks=settings.delivery.looks,
        give_up_after_seconds=settings.delivery.look_give_up_seconds,
    )


def door_terms(settings: Settings) -> DoorTerms:
    """What the door writes and allows."""
    return DoorTerms(
        settings.hostname,
        settings.delivery.max_retries,
        furthest_schedule=timedelta(days=settings.submission.longest_schedule_days),
    )


def session_limits(settings: Settings, index: int) -> SessionLimits:
    """A worker's caps: what holds for the node is shared out."""
    submission = settings.submission
    return SessionLimits(
        size_octets=submission.max_message_octets,
        # Never less than the largest message takes, dots stuffed: it could not come in at any time.
        max_held_octets=max(
            share(submission.max_held_octets, index, settings.processes), 2 * submission.max_message_octets
        ),
        max_recipients=submission.max_recipients,
        max_connections=share(submission.max_connections, index, settings.processes),
        max_connections_per_peer=share(submission.max_connections_per_peer, index, settings.processes),
        max_auth_tries=submission.max_auth_tries,
        idle_seconds=submission.idle_seconds,
        data_seconds=submission.data_seconds,
        session_seconds=submission.session_seconds,
    )


def breaker_terms(settings: Settings) -> BreakerTerms:
    """When an upstream that fails is not used any more."""
    return BreakerTerms(**settings.breaker.model_dump())


def resolver(settings: Settings) -> Resolver:
    """Whom to ask about DNS."""
    chosen = settings.dns
    return Resolver(chosen.nameservers, port=chosen.port, timeout_seconds=chosen.timeout_seconds)


def tiers(settings: Settings) -> dict[str, Tier]:
    """What each tier allows, by name."""
    return by_name(Tier(**tier.model_dump()) for tier in settings.tiers)


def health(settings: Settings) -> HealthTerms:
    """From when on a mailbox is paused."""
    chosen = settings.health
    return HealthTerms(
        days=chosen.days,
        least_tried=chosen.least_tried,
        bounces_pause=chosen.bounces_pause,
        spam_pause=chosen.spam_pause,
    )


def warm_up(settings: Settings) -> WarmUpTerms:
    """How mailboxes warm up."""
    chosen = settings.warm_up
    return WarmUpTerms(
        schedule=Schedule.parse(chosen.schedule),
        gate=Gate(
            least_sent=chosen.least_sent,
            bounces_hold=chosen.bounces_hold,
            bounces_lower=chosen.bounces_lower,
            spam_hold=chosen.spam_hold,
            spam_lower=chosen.spam_lower,
        ),
        health_days=settings.health.days,
    )


def delays(settings: Settings) -> DelayTerms:
    """When to warn of mail that waits."""
    return DelayTerms(
        warn_after=timedelta(seconds=settings.delivery.delay_warning_seconds),
        give_up_after=timedelta(seconds=settings.delivery.give_up_after_seconds),
        outlook=Terms(Schedule.parse(settings.warm_up.schedule), settings.delivery.release_spread_seconds),
    )


def publishing(settings: Settings) -> Publishing:
    """What `relayd domain records` tells people to publish."""
    return Publishing(**settings.publish.model_dump())


def verdicts(settings: Settings) -> tuple[OperatorRule, ...]:
    """The operator's own readings of replies, in their order."""
    return tuple(
        OperatorRule(
            operator_rule(
                outcome=each.outcome,
                scope=Scope(each.scope),
                stages=[Stage(stage) for stage in each.stages],
                codes=each.codes,
                enhanced=each.enhanced,
                text=each.text,
                http=each.http,
                reason=each.reason,
                hold_seconds=each.hold_seconds,
                limit=each.limit,
                note=each.note,
            ),
            each.upstream,
            each.dialect,
        )
        for each in settings.verdicts
    )
