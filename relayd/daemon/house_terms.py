"""From settings to the values that the control socket and the chores are handed. No worker loads this."""

from datetime import timedelta

from relayd.config.settings import Settings
from relayd.control.route import Publishing
from relayd.dns.resolver import Resolver
from relayd.rules.tiers import Tier, by_name
from relayd.rules.warm_up import Gate, Schedule
from relayd.store.outlook import Terms
from relayd.upkeep.health import HealthTerms
from relayd.upkeep.warm_up import WarmUpTerms
from relayd.upkeep.warn_of_delays import DelayTerms


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
