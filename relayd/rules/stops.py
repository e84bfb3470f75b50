"""What only somebody can change before an entry may leave: a pause, a status, a limit of nothing. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from relayd.rules.budget import Budget
from relayd.rules.budgets import BudgetKind
from relayd.rules.duration import at_time
from relayd.rules.facts import Facts, RouteFacts
from relayd.rules.states import LaneClass


def stops(facts: Facts, now: datetime) -> Iterator[tuple[str, str | None]]:
    """Each with a sentence and the command that helps, if there is one."""
    yield from _paused(facts.route, now)
    yield from _dead_grant(facts.route, now)
    yield from _not_allowed(facts)


def _paused(route: RouteFacts, now: datetime) -> Iterator[tuple[str, str | None]]:
    if route.all_paused_at is not None:
        since = at_time(route.all_paused_at, now)
        yield f"everything is paused since {since}{because(route.all_paused_reason)}", "relayd resume everything"
    upstream = f"upstream {route.upstream}"
    if route.upstream_paused_at is not None:
        since = at_time(route.upstream_paused_at, now)
        yield f"{upstream} is paused since {since}{because(route.upstream_paused_reason)}", f"relayd resume {upstream}"
    if route.broken is not None and route.broken.retry_at is None and route.preferred is None:
        sentence = f"the breaker of {upstream} is held open{because(route.broken.reason)}"
        yield sentence, f"relayd upstream breaker {route.upstream} close"
    if not route.upstream_is_active:
        yield f"{upstream} is not active", f"relayd upstream set {route.upstream} --active"


def _dead_grant(route: RouteFacts, now: datetime) -> Iterator[tuple[str, str | None]]:
    if route.grant_died_at is not None:
        since = at_time(route.grant_died_at, now)
        step = f"relayd upstream show {route.upstream}"  # the cure is in the error's own text
        yield f"upstream {route.upstream} gets no token since {since}{because(route.grant_error)}", step


def _not_allowed(facts: Facts) -> Iterator[tuple[str, str | None]]:
    mailbox = facts.mailbox
    name = f"mailbox {mailbox.address}"
    activate = "--status active"
    if mailbox.client_status != "active":
        yield f"client {mailbox.client} is {mailbox.client_status}", f"relayd client set {mailbox.client} {activate}"
    if mailbox.domain_status not in ("pending", "active"):
        yield f"domain {mailbox.domain} is {mailbox.domain_status}", f"relayd domain set {mailbox.domain} {activate}"
    if mailbox.is_removed:
        yield f"{name} has been removed", None
    elif mailbox.status == "paused":
        yield f"{name} is paused{because(mailbox.status_reason)}", f"relayd resume {name}"
    elif mailbox.status not in ("warming", "active"):
        step = f"relayd mailbox set {mailbox.address} {activate}"
        yield f"{name} is {mailbox.status}{because(mailbox.status_reason)}", step
    yield from _never(facts)


def _never(facts: Facts) -> Iterator[tuple[str, str | None]]:
    is_bulk = facts.lane.lane_class is LaneClass.BULK
    for budget in facts.limits.budgets:
        # The hour's share of nothing needs no sentence of its own.
        if budget.kind is BudgetKind.MAILBOX_HOUR or not budget.is_never(is_bulk=is_bulk):
            continue
        if budget.unit_limit:
            client = f"relayd client set {facts.mailbox.client}"
            step = f"{_quota(budget) if budget.is_of_provider else client} --bulk-reserve PERCENT"
            yield f"{budget.allows()}, and all of them are kept from bulk mail, so it never leaves", step
        else:
            yield f"{budget.allows()}, so it never leaves", _raise(budget)


def _raise(budget: Budget) -> str:
    match budget.kind:
        case BudgetKind.MAILBOX_DAY | BudgetKind.MAILBOX_HOUR:
            if budget.growth:
                return f"relayd warmup start {budget.owner} --cap N"
            return f"relayd mailbox set {budget.owner} --daily-limit N"
        case BudgetKind.DOMAIN_DAY:
            return f"relayd domain set {budget.owner} --daily-limit N"
        case BudgetKind.CLIENT_DAY:
            return f"relayd client set {budget.owner} --daily-limit N"
        case BudgetKind.PROVIDER_DAY:
            return f"{_quota(budget)} --daily N"
        case BudgetKind.PROVIDER_HOUR:
            return f"{_quota(budget)} --hourly N"
        case _:
            assert_never(budget.kind)


def _quota(budget: Budget) -> str:
    return f"relayd upstream quota {budget.owner}" + (f" --mailbox {budget.user}" if budget.user else "")


def because(reason: str | None) -> str:
    """A reason, to be put behind what it is for."""
    return f": {reason}" if reason else ""
