"""From settings to the values that the parts of a worker are handed."""

from dataclasses import replace
from datetime import timedelta

from relayd.config.settings import Settings
from relayd.intake.door import DoorTerms
from relayd.rules.breaker import BreakerTerms
from relayd.rules.doubt import LookPolicy
from relayd.rules.outcome import Scope, Stage
from relayd.rules.retry import RetryPolicy
from relayd.submission.limits import SessionLimits
from relayd.upstream.settings import Timeouts
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
    """A worker's caps. The memory is shared out; the connections are counted by the workers together."""
    submission = settings.submission
    return SessionLimits(
        size_octets=submission.max_message_octets,
        # Never less than the largest message takes, dots stuffed: it could not come in at any time.
        max_held_octets=max(
            share(submission.max_held_octets, index, settings.processes), 2 * submission.max_message_octets
        ),
        max_recipients=submission.max_recipients,
        max_connections=submission.max_connections,
        max_connections_per_peer=submission.max_connections_per_peer,
        max_auth_tries=submission.max_auth_tries,
        reject_invalid_helo=submission.reject_invalid_helo,
        idle_seconds=submission.idle_seconds,
        data_seconds=submission.data_seconds,
        session_seconds=submission.session_seconds,
    )


def connection_timeouts(settings: Settings) -> Timeouts:
    """Of connections to upstreams. What comes before MAIL ends within an attempt, so that nothing is in doubt then."""
    timeouts = Timeouts(greeting=settings.delivery.greeting_seconds)
    opening = min(timeouts.opening_seconds, 0.9 * settings.delivery.attempt_seconds)
    return replace(timeouts, opening=opening)


def breaker_terms(settings: Settings) -> BreakerTerms:
    """When an upstream that fails is not used any more."""
    return BreakerTerms(**settings.breaker.model_dump())


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
