"""What any server's replies mean: RFC 5321, RFC 3463, RFC 4954, RFC 9110. Comes after every other table."""

from relayd.rules.outcome import Scope, Stage
from relayd.upstream.rule import ENVELOPE, OPENING, WHOLE_MESSAGE, Meaning, Rule

_TOO_MANY = "too many recipients"

RULES: tuple[Rule, ...] = (
    # A 5xx greeting or a 535 must not bounce mail. What speaks of one mailbox's own login must not stop the others.
    Rule(
        Meaning.POSTPONED,
        Scope.MAILBOX,
        (Stage.AUTH,),
        ("535",),
        needs_own_login=True,
        hold_seconds=300,
        note="this mailbox's own login is refused; mend it, the others go on",
    ),
    Rule(Meaning.DEFERRED, Scope.UPSTREAM, OPENING, note="before MAIL no reply can condemn a message"),
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        codes=("421",),
        note="RFC 5321 3.8: the server closes the channel, whatever was asked",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.UPSTREAM,
        ENVELOPE,
        ("530", "535", "538"),
        note="RFC 4954 6: it speaks of our login or of TLS, not of this message",
    ),
    # Without one accepted there is no progress, and "at once" would be for ever.
    Rule(
        Meaning.POSTPONED,
        Scope.MESSAGE,
        (Stage.RCPT,),
        ("452",),
        "4.5.3",
        needs_accepted=True,
        note="RFC 5321 4.5.3.1.10: the transaction is full, the rest go in one of their own at once",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.MESSAGE,
        (Stage.RCPT,),
        ("452", "552"),
        text=_TOO_MANY,
        needs_accepted=True,
        note="the transaction is full, the rest go in one of their own at once; 552 is the old spelling",
    ),
    Rule(
        Meaning.DEFERRED,
        Scope.RECIPIENT,
        (Stage.RCPT,),
        ("552",),
        text=_TOO_MANY,
        note="too many recipients, of whom none was accepted",
    ),
    Rule(Meaning.FAILED, Scope.MESSAGE, codes=("552",), enhanced="5.3.4", note="the message is too big"),
    Rule(Meaning.DEFERRED, Scope.RECIPIENT, (Stage.RCPT,), ("4xx",), note="this recipient later: greylisting, mostly"),
    Rule(Meaning.FAILED, Scope.RECIPIENT, (Stage.RCPT,), ("5xx",), note="this recipient is refused"),
    Rule(Meaning.DEFERRED, Scope.MESSAGE, WHOLE_MESSAGE, ("4xx",), note="this message later"),
    Rule(Meaning.FAILED, Scope.MESSAGE, WHOLE_MESSAGE, ("5xx",), note="this message is refused"),
    Rule(Meaning.SENT, Scope.MESSAGE, (Stage.DOT,), ("2xx",), note="the server took responsibility"),
    Rule(
        Meaning.POSTPONED,
        Scope.MAILBOX,
        http=("401",),
        needs_own_login=True,
        hold_seconds=300,
        note="this mailbox's own token is refused; the others go on",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        http=("401", "403"),
        hold_seconds=300,
        note="the key or token is refused; nothing goes until somebody mends that",
    ),
    Rule(
        Meaning.POSTPONED,
        Scope.UPSTREAM,
        http=("429",),
        hold_seconds=60,
        note="too many requests: as long as Retry-After says, else a minute",
    ),
    Rule(Meaning.FAILED, Scope.MESSAGE, http=("413",), note="the message is too big"),
    Rule(Meaning.FAILED, Scope.MESSAGE, http=("400", "422"), note="the message is refused"),
    Rule(Meaning.DEFERRED, Scope.UPSTREAM, http=("501", "505"), note="refused for the manner of asking, unread"),
    # Who fails on the way may have taken it before, and who stands between answers for one who has.
    Rule(
        Meaning.UNCERTAIN,
        Scope.UPSTREAM,
        http=("408", "5xx"),
        note="the service failed when it had the message: sent or not",
    ),
    Rule(Meaning.DEFERRED, Scope.UPSTREAM, http=("3xx", "4xx"), note="the service is in trouble, or not there"),
)
