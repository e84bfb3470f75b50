"""Postfix. It answers at RCPT what it has against the client or the sender (smtpd_delay_reject)."""

from relayd.rules.outcome import Scope, Stage
from relayd.upstream.rule import IN_TRANSACTION, Meaning, Rule

RULES: tuple[Rule, ...] = (
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("4xx", "5xx"),
        text="relay access denied|relaying denied",
        note="it does not relay for us: our address is missing in mynetworks, or it wants a login",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.MAILBOX,
        IN_TRANSACTION,
        ("4xx", "5xx"),
        text="sender address rejected: not owned by|sender address rejected: not logged in",
        hold_seconds=3600,
        note="the login may not send as this mailbox (smtpd_sender_login_maps)",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.MESSAGE,
        (Stage.RCPT,),
        ("4xx",),
        text="sender address rejected",
        note="it speaks of the sender, not of this recipient",
    ),
    Rule(
        Meaning.FAILED,
        Scope.MESSAGE,
        (Stage.RCPT,),
        ("5xx",),
        text="sender address rejected",
        note="it speaks of the sender, not of this recipient",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("4xx",),
        text="client host rejected|helo command rejected|too much mail",
        note="it speaks of us, not of this recipient",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("5xx",),
        text="client host rejected|helo command rejected",
        hold_seconds=300,
        note="it does not take mail from our address or with our EHLO name",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("451", "452"),
        text="queue file write error|insufficient system storage",
        note="its disk is full",
    ),
)
