"""Handler that says what a reply of an upstream means, by which rule, and what becomes of the mail."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated, Literal

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import EmailAddress, Key
from relayd.errors import BadValue, Refusal
from relayd.rules.bounce_category import BounceKind, Category
from relayd.rules.bounce_class import BounceClass
from relayd.rules.duration import span_in_words
from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, Settlement, settle
from relayd.store import upstreams
from relayd.upstream.http import HttpReply
from relayd.upstream.http_verdict import judge_http, read, rule_for_http
from relayd.upstream.rule import Rule
from relayd.upstream.table import Origin, Table, table_of
from relayd.upstream.verdict import cause_of, judge_reply, rule_for

_HTTP = re.compile(r"(?:HTTP/\d(?:\.\d)?\s+)?([1-5]\d\d)(?:\s+(.*))?", re.DOTALL)
_LINE = re.compile(r"([2-5]\d\d)(?:[ -](.*))?")
_STAGES = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT)
_API_MODES = ("gmail_api", "api")


class AskVerdict(Request):
    """A reply as the log has it. `stage` left out: at every stage. `accepted`: another recipient was taken before.

    `recipient`: whom it refused; a reply that names somebody else is not about it.
    """

    name: Key
    reply: Annotated[str, Field(min_length=1, max_length=10_000)]
    stage: Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"] | None = None
    accepted: bool = False
    recipient: EmailAddress | None = None
    http: bool = False


class RuleView(View):
    """A line of the table: what it asks of a reply. `origin`: who made it."""

    origin: Origin
    stages: list[str]
    codes: list[str]
    enhanced: str | None
    text: str | None
    http: list[str]
    reason: str | None
    needs_accepted: bool
    needs_own_login: bool
    note: str


class ReadingView(View):
    """What it means at these stages. `rule` null: none speaks of it there, so it is taken for a broken connection."""

    stages: list[str]
    outcome: str
    scope: Scope | None
    hold_seconds: float | None
    limit: str | None
    spends_attempt: bool
    bounces: bool
    kind: BounceKind | None
    category: Category | None
    suppresses: bool
    effect: str
    rule: RuleView | None


class VerdictView(View):
    """The readings in the order of the stages; one where it is the same at all."""

    upstream: str
    dialect: str
    items: list[ReadingView]


async def show_verdict(context: Context, request: AskVerdict) -> VerdictView:
    """By the table that the upstream's connections use."""
    async with context.reading() as connection:
        upstream = await upstreams.find(connection, request.name)
    if upstream.provider_type == "capture":
        raise Refusal(f"upstream {upstream.name} is a capture: it writes files and hears no replies")
    table = table_of(upstream, context.house.verdicts)
    if request.http or upstream.mode in _API_MODES:
        items = [_http_reading(table, request)]
    else:
        items = list(_smtp_readings(table, request))
    return VerdictView(upstream=upstream.name, dialect=table.dialect, items=items)


def _http_reading(table: Table, request: AskVerdict) -> ReadingView:
    found = _HTTP.fullmatch(request.reply.strip())
    if found is None or request.stage is not None:
        what = "an HTTP answer has no stage" if found else "that is no HTTP answer"
        raise BadValue(what, hint="it begins with its status, such as '429 {\"error\": …}'")
    text = found.group(2) or ""
    # A reason phrase may stand before the JSON.
    reply = HttpReply(int(found.group(1)), text[max(text.find("{"), 0) :].encode(), None)
    if reply.status < 300:
        raise BadValue(f"HTTP {reply.status} is a success", hint="ask about one that is not")
    cause, reasons = read(reply)
    rule = rule_for_http(reply.status, cause.text, reasons, table.rules)
    return _reading(table, ["http"], rule, judge_http(reply, table.rules))


def _smtp_readings(table: Table, request: AskVerdict) -> Iterator[ReadingView]:
    code, text = _parsed(request.reply)
    stages: Sequence[Stage] = [Stage(request.stage)] if request.stage else _STAGES if code >= 400 else [Stage.DOT]
    found = []
    for stage in stages:
        cause = cause_of(stage, code, text)
        rule = rule_for(cause, some_accepted=request.accepted, rules=table.rules)
        outcome = judge_reply(
            stage,
            code,
            text,
            some_accepted=request.accepted,
            is_sole_recipient=not request.accepted,
            rules=table.rules,
        )
        found.append((stage, rule, outcome))
    for _, group in groupby(found, key=lambda each: (id(each[1]), type(each[2]), _scope(each[2]))):
        together = list(group)
        _, rule, outcome = together[0]
        yield _reading(table, [str(stage) for stage, _, _ in together], rule, outcome, request.recipient)


def _parsed(reply: str) -> tuple[int, str]:
    """The code and the text, of several lines as they come over the wire. Raises BadValue."""
    lines = [_LINE.fullmatch(line.strip()) for line in reply.strip().splitlines()]
    codes = {line.group(1) for line in lines if line}
    if None in lines or len(codes) != 1:
        raise BadValue(
            "that is no SMTP reply: three digits from 200 to 599 and a text, every line with the same",
            hint="such as '550 5.7.1 not allowed'; an HTTP answer goes with --http",
        )
    return int(codes.pop()), "\n".join(line.group(2) or "" for line in lines if line)


def _reading(
    table: Table, stages: list[str], rule: Rule | None, outcome: Outcome, recipient: str | None = None
) -> ReadingView:
    now = datetime.now(UTC)
    attempted = Attempted(0, 50, now, recipient or "")
    settled = settle(outcome, attempted, RetryPolicy(), on_uncertain="retry", now=now, dice=0.5)
    bounce = settled.bounce
    return ReadingView(
        stages=stages,
        outcome=type(outcome).__name__.lower(),
        scope=_scope(outcome),
        hold_seconds=outcome.hold_seconds if isinstance(outcome, Postponed) else None,
        limit=outcome.limit if isinstance(outcome, Postponed) else None,
        spends_attempt=settled.spends_attempt,
        bounces=settled.notifies,
        kind=bounce.kind if bounce else None,
        category=bounce.category if bounce else None,
        suppresses=bounce is not None and bounce.suppresses,
        effect=_effect(outcome, settled),
        rule=None if rule is None else _rule(table, rule),
    )


def _rule(table: Table, rule: Rule) -> RuleView:
    return RuleView(
        origin=table.origin(rule),
        stages=[str(stage) for stage in rule.stages],
        codes=list(rule.codes),
        enhanced=rule.enhanced,
        text=rule.text,
        http=list(rule.http),
        reason=rule.reason,
        needs_accepted=rule.needs_accepted,
        needs_own_login=rule.needs_own_login,
        note=rule.note,
    )


def _scope(outcome: Outcome) -> Scope | None:
    return outcome.scope if isinstance(outcome, Deferred | Failed | Postponed) else None


def _effect(outcome: Outcome, settled: Settlement) -> str:
    match outcome:
        case Sent():
            return "it is sent"
        case Uncertain():
            return "sent or not, nobody knows: it is sent again or held, as the upstream's on_uncertain says"
        case Failed(scope, _):
            whose = "the recipient" if scope is Scope.RECIPIENT else "every recipient of the message"
            return f"{whose} fails and the sender is told{_suppression(settled.bounce)}"
        case Deferred():
            counts = "; it counts against the upstream" if outcome.scope is Scope.UPSTREAM else ""
            return f"an attempt is spent; it is tried again later, from about a minute on{counts}"
        case Postponed(scope, _, hold_seconds, limit):
            wait = f"waits {span_in_words(timedelta(seconds=hold_seconds))}" if hold_seconds else "goes again at once"
            whose = {Scope.UPSTREAM: "all that goes there", Scope.MAILBOX: "all of the mailbox"}.get(scope, "it")
            spent = f"; the quota of the {limit} counts as spent" if limit else ""
            return f"no attempt is spent, nothing bounces; {whose} {wait}{spent}"


def _suppression(bounce: BounceClass | None) -> str:
    if bounce is None:
        return ""
    effect = "the address is suppressed" if bounce.suppresses else "the address is not suppressed"
    return f" ({bounce.kind} bounce, {bounce.category}); {effect}"


ROUTES = (
    Route("GET", "/v1/upstreams/{name}/verdict", show_verdict, "Say what a reply of it means", AskVerdict, VerdictView),
)
