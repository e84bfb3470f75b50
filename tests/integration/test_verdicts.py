"""Replies of real servers, read by the table of their upstream; the command that reads one; the operator's rules."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from relayd.daemon import gmail as daemon_gmail
from relayd.daemon.providers import Providers
from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.store import upstreams
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.gmail_api import GmailApi as Sender
from relayd.upstream.smarthost import Smarthost
from relayd.upstream.table import OperatorRule, operator_rule, table_of
from tests.builders import claim_all, make_sender, put_many
from tests.integration.conftest import Control
from tests.integration.test_claim import settle, start
from tests.peers.gmail_api import Answer, GmailApi
from tests.peers.mail import Authority, settings, transmission
from tests.peers.sendgrid_api import KEY, SendGridApi
from tests.peers.smtp_server import Action, Disconnect, ScriptedServer
from tests.peers.tokens import Tokens

GOOGLE = UpstreamRecord(UUID(int=1), "google", "google_workspace", mode="smtp-relay", smtp_host="127.0.0.1")
MAIL = b"From: app@example.org\r\nTo: one@example.net\r\nSubject: s\r\n\r\nhello\r\n"
OWN = OperatorRule(
    operator_rule(
        outcome="postponed",
        scope=Scope.MAILBOX,
        stages=(),
        codes=("550",),
        enhanced=None,
        text="our own words",
        http=(),
        reason=None,
        hold_seconds=1800,
        limit=None,
        note="as their support says",
    ),
    upstream="out",
)

SAID = [
    (Stage.EHLO, "421 4.7.0 Try again later, closing connection", Deferred, Scope.UPSTREAM),
    (Stage.MAIL, "421 4.7.0 Try again later, closing connection", Deferred, Scope.UPSTREAM),
    (Stage.MAIL, "450 4.2.1 Peak SMTP relay limit exceeded for customer", Postponed, Scope.UPSTREAM),
    (Stage.RCPT, "450 4.2.1 The user is receiving mail too quickly", Deferred, Scope.RECIPIENT),
    (Stage.MAIL, "550 5.4.5 Daily SMTP relay limit exceeded for user", Postponed, Scope.MAILBOX),
    (Stage.RCPT, "550-5.4.5 Daily user sending limit exceeded\n550 5.4.5 more words", Postponed, Scope.MAILBOX),
    (Stage.DOT, "550 5.4.5 Daily user sending limit exceeded", Postponed, Scope.MAILBOX),
    (Stage.DOT, "550 5.7.1 Daily SMTP relay limit exceeded for customer", Postponed, Scope.UPSTREAM),
    (Stage.AUTH, "535 5.7.8 Username and Password not accepted", Deferred, Scope.UPSTREAM),
    (Stage.AUTH, "454 4.7.0 Cannot authenticate due to temporary system problem", Deferred, Scope.UPSTREAM),
    (Stage.AUTH, "534 5.7.9 Application-specific password required", Postponed, Scope.UPSTREAM),
    (Stage.DOT, Disconnect(), Uncertain, None),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(("stage", "action", "kind", "scope"), SAID, ids=lambda value: str(value)[:40])
async def test_googles_replies_have_their_outcome(
    db: Database, stage: Stage, action: Action, kind: type[Outcome], scope: Scope | None
) -> None:
    async with ScriptedServer({stage: action}, extensions=("AUTH PLAIN", "PIPELINING")) as server:
        login = {"username": "relay", "password": "pa55", "allow_plaintext_auth": True}
        smarthost = Smarthost(settings(server.port, rules=table_of(GOOGLE).rules, **login))
        (outcome,) = await smarthost.deliver(transmission("one@example.net"))
        await smarthost.close()
    assert (type(outcome), getattr(outcome, "scope", None)) == (kind, scope)
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(
            "INSERT INTO google_workspace_quota (upstream_id, mailbox_id, daily_limit) VALUES ($1, $2, 100)",
            sender.upstream_id,
            sender.mailbox_id,
        )
        await put_many(c, sender, 1)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        await settle(c, entries, outcome)
        row = await c.fetchrow("SELECT status, retry_count FROM email_queue")
        spends = kind is not Postponed
        assert tuple(row) == ("queued", int(spends))
        assert await c.fetchval("SELECT count(*) FROM messages WHERE parent_id IS NOT NULL") == 0
        # What is in doubt has been counted; what the mailbox's own limit refused is counted up to it.
        is_mailboxes = isinstance(outcome, Postponed) and outcome.scope is Scope.MAILBOX
        used = 100 if is_mailboxes else int(kind is Uncertain)
        assert await c.fetchval("SELECT used FROM budget_usage WHERE kind = 'provider_day'") == used


@pytest.mark.parametrize("mode", ["smtp", "api"])
async def test_sendgrid_sends_either_way_from_its_row(
    control: Control, authority: Authority, mode: str, tmp_path: Path
) -> None:
    async with (
        ScriptedServer(starttls=authority.server_context("localhost"), extensions=("AUTH PLAIN",)) as server,
        SendGridApi(authority.server_context("localhost")) as api,
    ):
        where: dict[str, Any] = {"host": "localhost", "port": server.port} if mode == "smtp" else {"api_url": api.url}
        body = {"name": "out", "provider": "sendgrid", "mode": mode, "api_key": KEY, "ca_file": authority.file, **where}
        added = await control.ok("POST", "upstreams", body)
        assert (added["caution"] is None) == (mode == "smtp")
        providers = Providers(
            control.db, control.house.seal, hostname="relay.example.org", index=0, workers=1, emit=lambda event: None
        )
        ((terms, build),) = await providers.load()
        assert terms.provider == "sendgrid"
        upstream = build()
        (outcome,) = await upstream.deliver(transmission("one@example.net", content=MAIL))
        await upstream.close()
        assert isinstance(outcome, Sent), outcome
        assert len(api.taken if mode == "api" else server.messages) == 1
        if mode == "smtp":
            assert b"AUTH PLAIN AGFwaWtleQBTRy5jYW5hcnkta2V5" in server.commands


async def test_an_upstream_without_its_key_is_told_and_the_others_go_on(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": "sendgrid", "mode": "api"})
    await control.ok("POST", "upstreams", {"name": "box", "provider": "capture", "directory": "/m"})
    providers = Providers(
        control.db, control.house.seal, hostname="relay.example.org", index=0, workers=1, emit=lambda event: None
    )
    assert [terms.name for terms, _ in await providers.load()] == ["box"]
    assert "relayd upstream set out --api-key-file" in caplog.text


async def test_the_operators_rules_reach_the_connections(control: Control) -> None:
    async with ScriptedServer({Stage.MAIL: "550 5.1.1 in OUR own words"}) as server:
        body = {"provider": "smtp_relay", "host": "127.0.0.1", "port": server.port, "tls": "none"}
        for name in ("other", "out"):
            await control.ok("POST", "upstreams", {"name": name, **body})
        providers = Providers(
            control.db,
            control.house.seal,
            hostname="relay.example.org",
            index=0,
            workers=1,
            verdicts=(OWN,),
            emit=lambda event: None,
        )
        found = {}
        for terms, build in await providers.load():
            upstream = build()
            (found[terms.name],) = await upstream.deliver(transmission())
            await upstream.close()
    assert isinstance(found["other"], Failed)
    assert isinstance(found["out"], Postponed) and found["out"].hold_seconds == 1800


async def verdict(control: Control, reply: str, name: str = "out", **query: Any) -> Any:
    return await control.ok("GET", f"upstreams/{name}/verdict", params={"reply": reply, **query})


async def add(control: Control, **said: Any) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": "smtp_relay", "host": "smtp.gmail.com", **said})


async def test_the_command_says_outcome_rule_and_what_happens(control: Control) -> None:
    await add(control)
    found = await verdict(control, "550 5.4.5 Daily user sending limit exceeded")
    assert found["dialect"] == "google"
    opening, inside = found["items"]
    assert opening["stages"] == ["connect", "ehlo", "starttls", "auth"]
    assert (opening["outcome"], opening["scope"], opening["rule"]["origin"]) == ("deferred", "upstream", "generic")
    assert inside["stages"] == ["mail", "rcpt", "data", "dot"]
    assert (inside["outcome"], inside["scope"], inside["hold_seconds"], inside["limit"]) == (
        *("postponed", "mailbox", 3600, "day"),
    )
    assert (inside["spends_attempt"], inside["bounces"], inside["suppresses"]) == (False, False, False)
    assert inside["rule"]["origin"] == "dialect" and "a day is spent" in inside["rule"]["note"]


async def test_at_one_stage_there_is_one_reading(control: Control) -> None:
    await add(control)
    (reading,) = (await verdict(control, "550 5.1.1 no such user", stage="rcpt"))["items"]
    assert (reading["outcome"], reading["bounces"], reading["suppresses"]) == ("failed", True, True)
    assert (reading["kind"], reading["category"]) == ("hard", "no_such_user")
    (reading,) = (await verdict(control, "550 5.1.1 mailbox full", stage="rcpt"))["items"]
    assert (reading["kind"], reading["category"], reading["suppresses"]) == ("soft", "mailbox_full", False)
    assert "soft bounce, mailbox_full" in reading["effect"] and "not suppressed" in reading["effect"]
    for recipient, is_suppressed in (("u@b.test", True), ("u@c.test", False)):
        found = await verdict(control, "550 b.test does not exist", stage="rcpt", recipient=recipient)
        assert found["items"][0]["suppresses"] is is_suppressed
    (reading,) = (await verdict(control, "550 5.1.1 no such user", stage="dot"))["items"]
    assert (reading["scope"], reading["suppresses"]) == ("recipient", True)
    (reading,) = (await verdict(control, "550 5.1.1 no such user", stage="dot", accepted="true"))["items"]
    assert (reading["scope"], reading["suppresses"]) == ("message", False)
    (reading,) = (await verdict(control, "550 5.7.1 no", stage="rcpt"))["items"]
    assert (reading["bounces"], reading["suppresses"]) == (True, False)
    (reading,) = (await verdict(control, "452 4.5.3 full", stage="rcpt", accepted="true"))["items"]
    assert (reading["outcome"], reading["hold_seconds"]) == ("postponed", 0)
    (reading,) = (await verdict(control, "250 ok"))["items"]
    assert (reading["stages"], reading["outcome"]) == (["dot"], "sent")
    (reading,) = (await verdict(control, "354 go on", stage="dot"))["items"]
    assert (reading["outcome"], reading["rule"]) == ("uncertain", None)


async def test_the_command_knows_the_operators_rules(control: Control) -> None:
    object.__setattr__(control.house, "verdicts", (OWN,))
    await add(control)
    (reading,) = (await verdict(control, "550 5.1.1 our own words", stage="rcpt"))["items"]
    assert (reading["outcome"], reading["rule"]["origin"], reading["rule"]["note"]) == (
        *("postponed", "operator", "as their support says"),
    )


async def test_an_api_has_answers_instead_of_replies(control: Control) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": "sendgrid", "mode": "api", "api_key": KEY})
    said = json.dumps({"errors": [{"message": "Maximum credits exceeded"}]})
    for reply in (f"401 {said}", f"HTTP/1.1 401 Unauthorized {said}"):
        (reading,) = (await verdict(control, reply))["items"]
        assert (reading["stages"], reading["outcome"], reading["scope"]) == (["http"], "postponed", "upstream")
        assert reading["hold_seconds"] == 3600 and reading["rule"]["origin"] == "dialect"
    refused = await control.request("GET", "upstreams/out/verdict", params={"reply": "202 "})
    assert refused.status == 422 and "success" in refused.message


@pytest.mark.parametrize(
    ("answer", "kind", "scope", "hold"),
    [
        (Answer(429, "rateLimitExceeded", "User-rate limit exceeded (Mail sending)"), "postponed", "mailbox", 3600),
        (Answer(403, "rateLimitExceeded"), "postponed", "mailbox", 60),
        (Answer(403, "accessNotConfigured", "Gmail API has not been used"), "postponed", "upstream", 300),
        (Answer(404, "notFound"), "uncertain", None, None),
        (Answer(503), "uncertain", None, None),
        (Answer(400, "ourReason"), "postponed", "mailbox", 1800),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
async def test_gmails_api_does_what_the_command_says(
    control: Control, authority: Authority, answer: Answer, kind: str, scope: str | None, hold: float | None
) -> None:
    own = OperatorRule(replace(OWN.rule, codes=(), text=None, http=("400",), reason="ourReason"))
    object.__setattr__(control.house, "verdicts", (own,))
    with GmailApi(authority.server_context("127.0.0.1")) as google:
        google.interfere = lambda method, times: answer if method == "drafts.send" else None
        where = {"mode": "gmail_api", "api_url": google.url, "ca_file": authority.file}
        await control.ok("POST", "upstreams", {"name": "out", "provider": "google_workspace", **where})
        async with control.db.connection() as c:
            record = await upstreams.find(c, "out")
        rules = table_of(record, (own,)).rules
        gmail = Sender(daemon_gmail.settings(record, Tokens(), 1, 1, rules), daemon_gmail.others(control.db))
        (outcome,) = await gmail.deliver(transmission("one@example.net", content=MAIL, keep_reference=_keep))
        await gmail.close()
    # By Google's JSON, and by the text that the log has of it.
    _, _, text = outcome.cause.text.partition("HTTP ")
    error = {"message": answer.message, "errors": [{"reason": answer.reason, "message": answer.message}]}
    for said in (f"{answer.status} {json.dumps({'error': error})}", text):
        (reading,) = (await verdict(control, said))["items"]
        assert (reading["outcome"], reading["scope"], reading["hold_seconds"]) == (kind, scope, hold)
    assert type(outcome).__name__.lower() == kind
    assert (getattr(outcome, "scope", None), getattr(outcome, "hold_seconds", None)) == (scope, hold)


async def _keep(reference: str) -> None:
    pass


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"reply": "no reply at all"}, "that is no SMTP reply"),
        ({"reply": "55 x"}, "that is no SMTP reply"),
        ({"reply": "650 x"}, "that is no SMTP reply"),
        ({"reply": "550 a\n551 b"}, "that is no SMTP reply"),
        ({"reply": ""}, "reply"),
        ({"reply": "550 x", "stage": "lunch"}, "stage"),
        ({"reply": "oops", "http": "true"}, "that is no HTTP answer"),
        ({"reply": "429 x", "http": "true", "stage": "rcpt"}, "an HTTP answer has no stage"),
        ({}, "reply"),
    ],
)
async def test_what_is_no_reply_is_refused(control: Control, query: dict[str, str], text: str) -> None:
    await add(control)
    answer = await control.request("GET", "upstreams/out/verdict", params=query)
    assert answer.status == 422 and text in answer.message, answer.text


async def test_a_capture_and_a_stranger_have_no_replies(control: Control) -> None:
    await control.ok("POST", "upstreams", {"name": "box", "provider": "capture", "directory": "/m"})
    assert (await control.request("GET", "upstreams/box/verdict", params={"reply": "550 x"})).status == 409
    assert (await control.request("GET", "upstreams/nobody/verdict", params={"reply": "550 x"})).status == 404


async def test_the_command_line_prints_it_for_people(control: Control) -> None:
    await add(control)
    ran = await control.cli("upstream", "verdict", "out", "550 5.4.5 Daily limit exceeded", "--stage", "dot")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        "upstream out, dialect google",
        "at dot: postponed, mailbox",
        "  no attempt is spent, nothing bounces; all of the mailbox waits 1 h; the quota of the day counts as spent",
        "  rule of google (codes 5xx, text “daily*limit exceeded|daily*quota exceeded|email quota exceeded”): "
        "what Google lets this user send a day is spent",
    ]
    assert json.loads((await control.cli("upstream", "verdict", "out", "250 ok", "--json")).out)["items"]
    wrong = await control.cli("upstream", "verdict", "out", "hello")
    assert wrong.code == 1 and "no SMTP reply" in wrong.err and "550 5.7.1" in wrong.err


async def test_sendgrids_api_says_what_is_lost_when_it_is_added(control: Control, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    ran = await control.cli(
        *("upstream", "add", "out", "--provider", "sendgrid", "--mode", "api", "--api-key-file", str(key))
    )
    assert ran.code == 0 and "DKIM signature" in ran.err
    assert "DKIM signature" in (await control.cli("upstream", "show", "out")).out
