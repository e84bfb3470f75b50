"""docs/verdicts.md is the table: every row is checked against the code, and every rule has a row."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from relayd.rules.duration import parse_duration
from relayd.rules.outcome import Deferred, Failed, Limit, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, settle
from relayd.rules.states import Status
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.dialects import generic
from relayd.upstream.http import HttpReply
from relayd.upstream.http_verdict import judge_http, read, rule_for_http
from relayd.upstream.rule import Meaning, Rule, contains
from relayd.upstream.table import DIALECTS, OperatorRule, dialect_of, operator_rule, table_of
from relayd.upstream.verdict import cause_of, judge_reply, rule_for
from tests.unit.rules.test_explain import NOW

PAGE = (Path(__file__).parents[3] / "docs" / "verdicts.md").read_text()
KINDS = {
    "sent": Sent, "deferred": Deferred, "failed": Failed, "postponed": Postponed, "uncertain": Uncertain,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    dialect: str
    at: str
    reply: str
    outcome: str
    scope: str
    waits: str
    note: str

    @property
    def rules(self) -> list[Rule]:
        with_own = "own login" in self.at
        return [each for each in (*DIALECTS[self.dialect], *generic.RULES) if with_own or not each.needs_own_login]

    def readings(self) -> Iterator[tuple[Outcome, Rule | None]]:
        code, _, text = self.reply.partition(" ")
        for at in re.sub(r"\(.*\)", "", self.at).split(","):
            if at.strip() == "http":
                # A single word is a reason.
                said = text if " " in text else json.dumps({"error": {"errors": [{"reason": text}]}})
                reply = HttpReply(int(code), said.encode(), None)
                cause, reasons = read(reply)
                yield judge_http(reply, self.rules), rule_for_http(reply.status, cause.text, reasons, self.rules)
            else:
                stage, after = Stage(at.strip()), "after another" in self.at
                cause = cause_of(stage, int(code), text)
                rule = rule_for(cause, some_accepted=after, rules=self.rules)
                yield judge_reply(stage, int(code), text, some_accepted=after, rules=self.rules), rule


def rows() -> Iterator[Row]:
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        dialect = re.search(r"^Dialect `(\w+)`", section, re.MULTILINE)
        for line in section.splitlines() if dialect else ():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if dialect and len(cells) == 6 and cells[1].startswith("`"):
                yield Row(dialect.group(1), cells[0], cells[1].strip("`"), *cells[2:])


ROWS = list(rows())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.dialect}-{row.at}-{row.reply}")
def test_a_reply_means_what_the_page_says(row: Row) -> None:
    for outcome, rule in row.readings():
        assert type(outcome) is KINDS[row.outcome]
        assert str(getattr(outcome, "scope", "")) == row.scope
        assert rule and rule.note == row.note
        if isinstance(outcome, Postponed):
            hold, _, limit = row.waits.partition(", ")
            wanted = 0.0 if hold == "at once" else parse_duration(hold.replace("min", "m")).total_seconds()
            assert (outcome.hold_seconds, outcome.limit) == (wanted, limit or None)
        else:
            assert row.waits == ""


def test_every_rule_has_a_row() -> None:
    shown = {id(rule) for row in ROWS for _, rule in row.readings()}
    for dialect, rules in {**DIALECTS, "generic": generic.RULES}.items():
        assert [rule for rule in rules if id(rule) not in shown] == [], dialect
    assert len(ROWS) > 100


@pytest.mark.parametrize("row", [row for row in ROWS if row.outcome == "postponed"], ids=lambda row: row.reply)
def test_what_is_postponed_spends_nothing_and_tells_nobody(row: Row) -> None:
    for outcome, _ in row.readings():
        settled = settle(
            outcome, Attempted(50, 50, NOW), RetryPolicy(), on_uncertain="retry", now=NOW, dice=0.5
        )  # fmt: skip
        assert (settled.status, settled.spends_attempt, settled.notifies) == (Status.QUEUED, False, False)
        assert settled.returns_unit
        limit: Limit | None = outcome.limit if isinstance(outcome, Postponed) else None
        assert (settled.spent_limit is not None) == (limit is not None)


def test_no_rule_makes_a_refusal_a_success_or_waits_for_ever() -> None:
    for rule in (rule for rules in (*DIALECTS.values(), generic.RULES) for rule in rules):
        assert rule.note
        assert rule.meaning is not Meaning.SENT or rule.codes == ("2xx",)
        assert rule.meaning is not Meaning.FAILED or rule.scope in (Scope.MESSAGE, Scope.RECIPIENT)
        # What goes again at once has made progress.
        assert rule.meaning is not Meaning.POSTPONED or rule.hold_seconds >= 1 or rule.needs_accepted
        assert rule.hold_seconds <= 3600


OPENING = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_in_no_dialect_a_reply_before_mail_condemns_a_message(dialect: str) -> None:
    replies = {row.reply for row in ROWS if not row.at.startswith("http")}
    for reply in replies:
        for stage in OPENING:
            outcome = judge_reply(stage, int(reply[:3]), reply[4:], rules=(*DIALECTS[dialect], *generic.RULES))
            assert not isinstance(outcome, Failed), (dialect, reply)


def upstream(**said: object) -> UpstreamRecord:
    return replace(UpstreamRecord(UUID(int=1), "out", "smtp_relay"), **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "dialect"),
    [
        ({"provider_type": "google_workspace", "mode": "xoauth2", "smtp_host": "127.0.0.1"}, "google"),
        ({"provider_type": "sendgrid", "mode": "api"}, "sendgrid"),
        ({"smtp_host": "SMTP-Relay.gmail.com."}, "google"),
        ({"smtp_host": "smtp.gmail.com"}, "google"),
        ({"smtp_host": "smtp.office365.com"}, "microsoft365"),
        ({"smtp_host": "example-com.mail.protection.outlook.com"}, "microsoft365"),
        ({"smtp_host": "email-smtp.eu-west-1.amazonaws.com"}, "ses"),
        ({"smtp_host": "smtp.sendgrid.net"}, "sendgrid"),
        ({"smtp_host": "smtp.gmail.com.example.net"}, "generic"),
        ({"smtp_host": "notsmtp.gmail.com"}, "generic"),
        ({"smtp_host": "postfix.example.net"}, "generic"),
        ({"smtp_host": "/run/postfix.sock"}, "generic"),
        ({"smtp_host": "smtp.gmail.com", "dialect": "exim"}, "exim"),
    ],
)
def test_the_dialect_is_said_or_told_by_provider_and_host(said: dict[str, object], dialect: str) -> None:
    assert dialect_of(upstream(**said)) == dialect


def own_rule(**said: object) -> Rule:
    plain = dict.fromkeys(("enhanced", "text", "reason", "limit"))
    more = {"stages": (), "codes": (), "http": (), "hold_seconds": 300.0, "note": ""}
    return operator_rule(**{**plain, **more, "outcome": "postponed", "scope": Scope.MAILBOX, **said})  # type: ignore[arg-type]


def test_an_operators_rule_comes_first_and_only_where_it_belongs() -> None:
    rule = own_rule(codes=("550",), text="no such user")
    operators = (OperatorRule(rule, upstream="out"), OperatorRule(own_rule(codes=("450",)), dialect="exim"))
    table = table_of(upstream(), operators)
    assert table.rules[0] is rule and table.origin(rule) == "operator"
    assert table.own == 1
    outcome = judge_reply(Stage.RCPT, 550, "5.1.1 No such user", rules=table.rules)
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MAILBOX
    assert table_of(upstream(name="other"), operators).own == 0
    assert table_of(upstream(dialect="exim"), operators).own == 2


def test_an_operators_failure_is_never_one_before_mail() -> None:
    table = table_of(upstream(), (OperatorRule(own_rule(codes=("554",), outcome="failed", scope=Scope.MESSAGE)),))
    for stage in OPENING:
        assert isinstance(judge_reply(stage, 554, "5.7.1 no", rules=table.rules), Deferred)
    assert isinstance(judge_reply(Stage.MAIL, 554, "5.7.1 no", rules=table.rules), Failed)


def test_whose_login_it_is_decides_whom_535_speaks_of() -> None:
    shared, own = upstream(), upstream(google_service_account_sealed=b"sealed")
    outcome = judge_reply(Stage.AUTH, 535, "5.7.8 bad", rules=table_of(own).rules)
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MAILBOX
    outcome = judge_reply(Stage.AUTH, 535, "5.7.8 bad", rules=table_of(shared).rules)
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("daily*limit", "550 Daily user sending LIMIT exceeded", True),
        ("daily*limit", "limit of the daily", False),
        ("a*a", "a", False),
        ("no|yes", "oh Yes", True),
        ("", "anything", True),
        ("*" * 200, "x" * 500, True),
        ("x*" * 100 + "y", "x" * 500, False),
    ],
)
def test_text_is_plain_words_with_stars_and_bars(pattern: str, text: str, expected: bool) -> None:
    assert contains(pattern, text) is expected


@pytest.mark.parametrize(
    ("asked", "hold"), [(None, 60.0), (0.0, 1.0), (17.0, 17.0), (10.0**9, 86_400.0)], ids=["none", "now", "17", "huge"]
)
def test_a_hold_is_as_long_as_the_answer_asks_within_reason(asked: float | None, hold: float) -> None:
    outcome = judge_http(HttpReply(429, b"slow down", asked))
    assert isinstance(outcome, Postponed) and outcome.hold_seconds == hold


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b'{"error": 3}', b'{"errors": "x"}', b"\xff\x00", b'{"error": {"errors": [7]}}']
)
def test_an_answer_that_is_no_json_is_read_by_its_status(content: bytes) -> None:
    outcome = judge_http(HttpReply(400, content, None))
    assert isinstance(outcome, Failed) and outcome.scope is Scope.MESSAGE
    assert outcome.cause.text.startswith("HTTP 400") and "\x00" not in outcome.cause.text


def test_success_is_nothing_that_the_table_can_see() -> None:
    assert isinstance(judge_http(HttpReply(200, b"{}", None)), Uncertain)
