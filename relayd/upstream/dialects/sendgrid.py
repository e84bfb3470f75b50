"""SendGrid, by SMTP and by its Web API. Source: twilio.com/docs/sendgrid, "SMTP Errors and Troubleshooting"."""

from relayd.rules.outcome import Scope, Stage
from relayd.upstream.rule import Meaning, Rule

_CREDITS = "maximum credits exceeded"
_SENDER = "verified sender identity|not authorized to send from that email address"

RULES: tuple[Rule, ...] = (
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("4xx", "5xx"),
        text=_CREDITS,
        hold_seconds=3600,
        note="the plan's mails are used up",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("452",),
        text="recipients received this hour",
        hold_seconds=600,
        limit="hour",
        note="what the account may send an hour is spent",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        (Stage.AUTH,),
        ("535",),
        hold_seconds=300,
        note="the API key is wrong, or may not send: relayd upstream set NAME --api-key-file FILE",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("550",),
        text="unauthenticated senders",
        hold_seconds=300,
        note="it wants a login: relayd upstream set NAME --api-key-file FILE",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        codes=("550",),
        text="repeated bad requests",
        hold_seconds=1800,
        note="SendGrid has shut us out for a while",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.MAILBOX,
        codes=("4xx", "5xx"),
        text=_SENDER,
        hold_seconds=3600,
        note="this mailbox's address is no verified sender there",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        http=("401", "403", "429"),
        text=_CREDITS,
        hold_seconds=3600,
        note="the plan's mails are used up",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.MAILBOX,
        http=("400", "403"),
        text=_SENDER,
        hold_seconds=3600,
        note="this mailbox's address is no verified sender there",
    ),
)
