"""Exim, with the texts of its default configuration. It gives no enhanced codes."""

from relayd.rules.outcome import Scope, Stage
from relayd.upstream.rule import IN_TRANSACTION, Meaning, Rule

RULES: tuple[Rule, ...] = (
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("4xx", "5xx"),
        text="relay not permitted",
        note="it does not relay for us: our address is missing in relay_from_hosts, or it wants a login",
    ),
    Rule(
        Meaning.FAILED,
        Scope.RECIPIENT,
        (Stage.RCPT,),
        ("550",),
        text="unrouteable address",
        note="no such recipient there",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.MESSAGE,
        (Stage.RCPT,),
        ("4xx",),
        text="sender verify|sender verification",
        note="it speaks of the sender, not of this recipient",
    ),
    Rule(
        Meaning.FAILED,
        Scope.MESSAGE,
        (Stage.RCPT,),
        ("5xx",),
        text="sender verify|sender verification",
        note="it speaks of the sender, not of this recipient",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        IN_TRANSACTION,
        ("452",),
        text="space shortage",
        note="its disk is full",
    ),
)
