"""The verdict table of an upstream: the operator's rules, then its dialect's, then the generic ones.

A dialect is never told by what a server says of itself: a greeting is the peer's to write, and anybody can write
"ESMTP Postfix". It is what the operator says, or what provider and host name say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from relayd.rules import known_hosts
from relayd.rules.outcome import Limit, Scope, Stage
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.dialects import exim, generic, google, microsoft365, postfix, sendgrid, ses
from relayd.upstream.rule import IN_TRANSACTION, Meaning, Rule

Origin = Literal["operator", "dialect", "generic"]

DIALECTS: Mapping[str, tuple[Rule, ...]] = {
    "google": google.RULES,
    "sendgrid": sendgrid.RULES,
    "microsoft365": microsoft365.RULES,
    "ses": ses.RULES,
    "postfix": postfix.RULES,
    "exim": exim.RULES,
    "generic": (),
}


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """A rule of the configuration; `upstream` and `dialect` None: for all of them."""

    rule: Rule
    upstream: str | None = None
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """What the replies of one upstream mean. `own` of the rules are the operator's, the first ones."""

    dialect: str
    rules: tuple[Rule, ...]
    own: int

    def origin(self, rule: Rule) -> Origin:
        """Who made a rule of this table."""
        place = next(place for place, each in enumerate(self.rules) if each is rule)
        if place < self.own:
            return "operator"
        return "generic" if any(rule is each for each in generic.RULES) else "dialect"


def table_of(upstream: UpstreamRecord, operators: Sequence[OperatorRule] = ()) -> Table:
    """The rules in their order."""
    own_login = has_own_logins(upstream)
    dialect = dialect_of(upstream)
    own = [
        each.rule for each in operators if each.upstream in (None, upstream.name) and each.dialect in (None, dialect)
    ]
    shipped = [rule for rule in (*DIALECTS[dialect], *generic.RULES) if own_login or not rule.needs_own_login]
    return Table(dialect, (*own, *shipped), len(own))


def has_own_logins(upstream: UpstreamRecord) -> bool:
    """Whether it logs in as the sending mailbox: what is said of a login then speaks of that mailbox alone."""
    return upstream.google_service_account_sealed is not None


def dialect_of(upstream: UpstreamRecord) -> str:
    """What the operator says, else by provider and host name."""
    return known_hosts.dialect_of(upstream.provider_type, upstream.dialect, upstream.smtp_host)


def operator_rule(
    *,
    outcome: Literal["deferred", "failed", "postponed"],
    scope: Scope,
    stages: Sequence[Stage],
    codes: Sequence[str],
    enhanced: str | None,
    text: str | None,
    http: Sequence[str],
    reason: str | None,
    hold_seconds: float,
    limit: Limit | None,
    note: str,
) -> Rule:
    """A rule in the operator's words. Where no stage is said none can condemn a message before MAIL."""
    rule = Rule(
        Meaning(outcome),
        scope,
        tuple(stages),
        tuple(codes),
        enhanced,
        text,
        hold_seconds=hold_seconds if outcome == "postponed" else 0.0,
        limit=limit,
        http=tuple(http),
        reason=reason,
        note=note,
    )
    if rule.stages or rule.http or outcome != "failed":
        return rule
    return replace(rule, stages=(Stage.RCPT,) if scope is Scope.RECIPIENT else IN_TRANSACTION)
