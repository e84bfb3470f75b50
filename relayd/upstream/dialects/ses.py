"""Amazon SES, by SMTP. Source: docs.aws.amazon.com/ses, "Amazon SES SMTP issues" and "sending quotas"."""

from relayd.rules.outcome import Scope
from relayd.upstream.rule import IN_TRANSACTION, Meaning, Rule

RULES: tuple[Rule, ...] = (
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("454",),
        text="daily message quota exceeded",
        hold_seconds=3600,
        limit="day",
        note="what the account may send in 24 hours is spent",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("454",),
        text="maximum sending rate exceeded",
        hold_seconds=5,
        note="more a second than the account may: relayd upstream set NAME --max-connections N",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("5xx",),
        text="sending suspended|sending paused",
        hold_seconds=3600,
        note="AWS has stopped the account; its console says why",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("5xx",),
        text="not authorized to perform",
        hold_seconds=300,
        note="the login's IAM policy lacks ses:SendRawEmail",
    ),
    Rule(
        Meaning.FAILED,
        Scope.MESSAGE,
        IN_TRANSACTION,
        ("554",),
        text="is not verified",
        note="the sender, or in the sandbox a recipient, is not verified there; the reply names it",
    ),
)
