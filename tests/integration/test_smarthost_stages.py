"""The promise of docs: at every stage, whatever the upstream does, the outcome says what is known and no more."""

import asyncio
from dataclasses import dataclass

import pytest

from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.smarthost import Smarthost, Timeouts
from tests.peers.mail import PATIENT, Authority, settings, transmission
from tests.peers.smtp_server import Action, Disconnect, Drip, Flood, HalfBody, Hang, ScriptedServer, StopReading

UPSTREAM, MESSAGE, RECIPIENT = Scope.UPSTREAM, Scope.MESSAGE, Scope.RECIPIENT
OPENING = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
STAGES = (*OPENING, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT)
IMPATIENT = Timeouts(connect=0.5, command=0.5, data_block=0.5, dot=0.5, quit=0.5)
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@dataclass(frozen=True)
class Case:
    stage: Stage
    action: Action
    kind: type[Outcome]
    scope: Scope | None

    def __str__(self) -> str:
        return f"{self.stage}-{self.action}"


def table() -> list[Case]:
    cases = []
    for stage in STAGES:
        opening = stage in OPENING
        scope = UPSTREAM if opening else RECIPIENT if stage is Stage.RCPT else MESSAGE
        lost: tuple[type[Outcome], Scope | None] = (Uncertain, None) if stage is Stage.DOT else (Deferred, UPSTREAM)
        cases += [
            Case(stage, "451 4.3.0 later", Deferred, scope),
            Case(stage, "554 5.0.0 never", Deferred if opening else Failed, scope),
            Case(stage, "421 4.3.2 closing", Deferred, UPSTREAM),
            Case(stage, Disconnect(after="421 4.3.2 closing"), Deferred, UPSTREAM),
            Case(stage, Disconnect(), *lost),
            Case(stage, Disconnect(after="250-and then"), *lost),
            Case(stage, Hang(), *lost),
            Case(stage, "garbage", *lost),
            Case(stage, "", *lost),
            Case(stage, "999 9.9.9 what", *lost),
            Case(stage, "100 what", *lost),
            Case(stage, "000 what", *lost),
            Case(stage, "25 what", *lost),
            Case(stage, "+25 what", *lost),
            Case(stage, "2500 what", *lost),
            Case(stage, "2_5 what", *lost),
            Case(stage, "550-5.1.1 no\r\n250 ok", *lost),
            Case(stage, "250-ok\r\n550 5.1.1 no", *lost),
            Case(stage, "250-a\r\n251-b\r\n250 c", *lost),
            Case(stage, "354-go\r\n250 ahead", *lost),
            Case(stage, "550-no\r\n451 later", *lost),
            Case(stage, Flood(), *lost),
            Case(stage, Flood(b"x" * 100), *lost),
        ]
        if stage is not Stage.DATA:
            cases.append(Case(stage, "354 go ahead", *lost))
        else:
            cases.append(Case(stage, "250 go ahead", *lost))
    return cases


@pytest.mark.parametrize("is_pipelining", [False, True])
@pytest.mark.parametrize("case", table(), ids=str)
async def test_every_stage_says_what_is_known(case: Case, is_pipelining: bool, authority: Authority) -> None:
    async with ScriptedServer({case.stage: case.action}, starttls=authority.server_context("localhost")) as server:
        if is_pipelining:
            server.extensions.append("PIPELINING")
        smarthost = Smarthost(
            settings(
                server.port,
                host="localhost",
                tls="starttls",
                ca_file=authority.file,
                username="app",
                password=PASSWORD,
                timeouts=IMPATIENT if isinstance(case.action, Hang) else PATIENT,
            )
        )
        outcomes = await smarthost.deliver(transmission("one@example.net", "two@example.net"))
        await smarthost.close()

    for outcome in outcomes:
        assert type(outcome) is case.kind
        assert getattr(outcome, "scope", None) is case.scope
        assert outcome.cause.stage is case.stage
        assert PASSWORD not in outcome.cause.text
    assert len(outcomes) == 2
    assert bool(server.messages) == (case.stage is Stage.DOT)
    # Where RCPT was refused and DATA followed in the same breath, this server waits for a message: it gets none.
    ended_by_rset = (Stage.DATA,) if is_pipelining else (Stage.RCPT, Stage.DATA)
    assert server.count(b"RSET") == (
        1 if case.stage in ended_by_rset and case.action in ("451 4.3.0 later", "554 5.0.0 never") else 0
    )


async def test_a_closed_port_is_deferred() -> None:
    async with ScriptedServer() as server:
        port = server.port
    (outcome,) = await Smarthost(settings(port)).deliver(transmission())
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage, outcome.cause.text) == (
        UPSTREAM,
        Stage.CONNECT,
        "connection refused",
    )


async def test_a_host_without_address_is_deferred() -> None:
    (outcome,) = await Smarthost(settings(25, host="no-such-host.invalid")).deliver(transmission())
    assert isinstance(outcome, Deferred)
    assert outcome.cause.stage is Stage.CONNECT


LARGE = transmission().content + b"0123456789abcdef" * 1_000_000 + b"\r\n"


@pytest.mark.parametrize(
    ("then", "kind", "scope", "code"),
    [
        (Disconnect(), Deferred, UPSTREAM, None),
        (Hang(), Uncertain, None, None),  # It reads on, swallows the dot, and says nothing.
        ("552 5.3.4 too big", Failed, MESSAGE, 552),
        ("451 4.3.0 disk full", Deferred, MESSAGE, 451),
        (Disconnect(after="421 4.3.0 going down"), Deferred, UPSTREAM, None),
        ("250 2.0.0 already", Deferred, UPSTREAM, None),
    ],
    ids=str,
)
async def test_what_happens_within_the_body_is_definite(
    then: "str | Disconnect | Hang", kind: type[Outcome], scope: Scope | None, code: int | None
) -> None:
    timeouts = Timeouts(connect=20, command=20, data_block=20, dot=0.5 if isinstance(then, Hang) else 20)
    async with ScriptedServer({Stage.DATA: HalfBody(1000, then)}) as server:
        smarthost = Smarthost(settings(server.port, timeouts=timeouts))
        (outcome,) = await smarthost.deliver(transmission(content=LARGE))
        await smarthost.close()
    assert type(outcome) is kind
    assert getattr(outcome, "scope", None) is scope
    assert outcome.cause.stage is (Stage.DOT if kind is Uncertain else Stage.DATA)
    if code:
        assert outcome.cause.code == code
    assert server.messages == []


async def test_a_peer_that_stops_reading_is_given_up_before_the_dot() -> None:
    async with ScriptedServer({Stage.DATA: StopReading()}) as server:
        smarthost = Smarthost(settings(server.port, timeouts=IMPATIENT))
        (outcome,) = await smarthost.deliver(transmission(content=LARGE))
        await smarthost.close()
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage) == (UPSTREAM, Stage.DATA)


async def test_the_same_holds_inside_tls(authority: Authority) -> None:
    async with ScriptedServer(
        {Stage.DATA: [StopReading(), HalfBody(1000, Disconnect())]},
        implicit_tls=authority.server_context("127.0.0.1"),
    ) as server:
        smarthost = Smarthost(
            settings(
                server.port,
                tls="implicit",
                ca_file=authority.file,
                timeouts=Timeouts(connect=20, command=20, data_block=0.5, dot=20),
            )
        )
        for _ in range(2):
            (outcome,) = await smarthost.deliver(transmission(content=LARGE))
            assert isinstance(outcome, Deferred)
            assert outcome.cause.stage is Stage.DATA
        await smarthost.close()


@pytest.mark.parametrize("surplus_at", [Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_a_surplus_reply_never_answers_for_the_dot(surplus_at: Stage) -> None:
    usual = {Stage.DATA: "354 go", Stage.EHLO: "250 scripted"}.get(surplus_at, "250 ok")
    async with ScriptedServer({surplus_at: f"{usual}\n250 queued as GHOST", Stage.DOT: "554 5.7.1 no"}) as server:
        smarthost = Smarthost(settings(server.port))
        (outcome,) = await smarthost.deliver(transmission())
        await smarthost.close()
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage) == (UPSTREAM, surplus_at)
    assert server.messages == []


async def test_a_surplus_reply_after_the_dot_hides_nothing_and_ends_the_connection() -> None:
    async with ScriptedServer({Stage.DOT: "554 5.7.1 no\n250 queued as GHOST"}) as server:
        smarthost = Smarthost(settings(server.port))
        for _ in range(2):
            (outcome,) = await smarthost.deliver(transmission())
            assert isinstance(outcome, Failed)
        await smarthost.close()
    assert len(server.sessions) == 2


@pytest.mark.parametrize(
    ("reply", "is_about_recipient"),
    [
        ("550 5.1.1 User unknown", True),
        ("550 5.1.1 <you@example.net> no such mailbox", True),
        ("554 5.7.1 user you@example.net does not exist", True),
        ("550 no such user here", True),
        ("550-5.1.1 recipient", True),
        ("550 5.1.1 mailbox full", False),
        ("550 5.1.1 sender unknown", False),
        ("554 5.7.1 rejected as spam", False),
        ("550 5.1.1 your IP is blocked", False),
        ("554 rejected", False),
        ("451 4.1.1 user unknown", False),
    ],
)
@pytest.mark.parametrize("stage", [Stage.DATA, Stage.DOT])
async def test_a_refusal_after_data_may_be_about_the_only_recipient(
    stage: Stage, reply: str, is_about_recipient: bool
) -> None:
    reply = reply.replace("550-5.1.1 recipient", "550-5.1.1 recipient\r\n550 5.1.1 does not exist")
    for recipients in (("you@example.net",), ("you@example.net", "me@example.net")):
        async with ScriptedServer({stage: reply}) as server:
            smarthost = Smarthost(settings(server.port))
            outcomes = await smarthost.deliver(transmission(*recipients))
            await smarthost.close()
        is_sole = len(recipients) == 1
        scopes = {outcome.scope for outcome in outcomes if isinstance(outcome, Failed | Deferred)}
        assert scopes == {RECIPIENT if is_about_recipient and is_sole else MESSAGE}


async def test_a_doubt_is_of_the_accepted_recipients_alone() -> None:
    replies = ["250 ok", "550 5.1.1 no such user", "250 ok"]
    async with ScriptedServer({Stage.RCPT: replies, Stage.DOT: Disconnect()}) as server:
        smarthost = Smarthost(settings(server.port))
        outcomes = await smarthost.deliver(transmission("a@example.net", "b@example.net", "c@example.net"))
        await smarthost.close()
    assert [type(outcome) for outcome in outcomes] == [Uncertain, Failed, Uncertain]


async def test_a_connection_lost_among_recipients_keeps_what_was_refused() -> None:
    async with ScriptedServer({Stage.RCPT: ["550 5.1.1 no", "250 ok", Disconnect()]}) as server:
        smarthost = Smarthost(settings(server.port))
        outcomes = await smarthost.deliver(transmission(*(f"{name}@example.net" for name in "abcd")))
        await smarthost.close()
    assert [type(outcome) for outcome in outcomes] == [Failed, Deferred, Deferred, Deferred]
    assert all(outcome.cause.stage is Stage.RCPT for outcome in outcomes)


async def test_commands_go_together_where_the_upstream_takes_them_so() -> None:
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b"220 hello\r\n")
        await reader.readline()
        writer.write(b"250-hello\r\n250 PIPELINING\r\n")
        heard = await reader.readuntil(b"DATA\r\n")  # without a word in between
        writer.write(b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 2.0.0 ok\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    smarthost = Smarthost(settings(server.sockets[0].getsockname()[1]))
    outcomes = await smarthost.deliver(transmission("a@example.net", "b@example.net"))
    await smarthost.close()
    server.close()
    assert [type(outcome) for outcome in outcomes] == [Sent, Failed]
    assert heard.count(b"\r\n") == 4


async def test_a_pipelined_message_goes_to_those_who_were_accepted() -> None:
    async with ScriptedServer({Stage.RCPT: ["250 ok", "550 5.1.1 no", "452 4.5.3 full", "250 ok"]}) as server:
        server.extensions.append("PIPELINING")
        smarthost = Smarthost(settings(server.port))
        outcomes = await smarthost.deliver(transmission(*(f"{name}@example.net" for name in "abcd")))
        again = await smarthost.deliver(transmission("a@example.net"))
        await smarthost.close()
    assert [type(outcome) for outcome in (*outcomes, *again)] == [Sent, Failed, Postponed, Sent, Sent]
    assert len(server.sessions) == 1


async def test_an_upstream_that_wants_a_message_for_nobody_gets_none() -> None:
    async with ScriptedServer({Stage.RCPT: ["550 5.1.1 no", "250 ok"]}) as server:
        server.extensions.append("PIPELINING")
        smarthost = Smarthost(settings(server.port))
        (refused,) = await smarthost.deliver(transmission("a@example.net"))
        (sent,) = await smarthost.deliver(transmission("b@example.net"))
        await smarthost.close()
    assert isinstance(refused, Failed)
    assert isinstance(sent, Sent)
    assert [message.forward_paths for message in server.messages] == [[b"RCPT TO:<b@example.net>"]]
    assert len(server.sessions) == 2


@pytest.mark.parametrize("surplus_at", [Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_a_surplus_reply_among_pipelined_ones_never_answers_for_the_dot(surplus_at: Stage) -> None:
    usual = "354 go" if surplus_at is Stage.DATA else "250 ok"
    async with ScriptedServer({surplus_at: f"{usual}\n250 queued as GHOST", Stage.DOT: "554 5.7.1 no"}) as server:
        server.extensions.append("PIPELINING")
        smarthost = Smarthost(settings(server.port))
        (outcome,) = await smarthost.deliver(transmission())
        await smarthost.close()
    assert isinstance(outcome, Deferred)
    assert outcome.scope is UPSTREAM
    assert outcome.cause.stage in (Stage.MAIL, Stage.RCPT, Stage.DATA)
    assert server.messages == []


async def test_what_an_idle_upstream_says_is_no_answer_to_the_next_command() -> None:
    async with ScriptedServer({Stage.DOT: ["250 2.0.0 ok", "554 5.7.1 no"]}) as server:
        smarthost = Smarthost(settings(server.port))
        await smarthost.deliver(transmission())
        server.sessions[0].say("250 queued as GHOST")
        await asyncio.sleep(0.05)
        (outcome,) = await smarthost.deliver(transmission())
        await smarthost.close()
    assert isinstance(outcome, Failed)
    assert len(server.sessions) == 2


@pytest.mark.parametrize("line", [b"250-still talking\r\n", b"x"])
@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.AUTH, Stage.DATA])
async def test_a_reply_that_drips_for_ever_is_given_up_and_told(stage: Stage, line: bytes) -> None:
    async with ScriptedServer({stage: Drip(line)}) as server:
        login = {"username": "app", "password": PASSWORD, "allow_plaintext_auth": True}
        smarthost = Smarthost(settings(server.port, timeouts=IMPATIENT, **login))
        (outcome,) = await smarthost.deliver(transmission())
        await smarthost.close()
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage) == (UPSTREAM, stage)
    assert "the reply does not end: given up after" in outcome.cause.text
    assert server.messages == []


@pytest.mark.parametrize("line", [b"250-still talking\r\n", b"x" * 100])
async def test_a_reply_without_end_is_given_up_and_told(line: bytes) -> None:
    async with ScriptedServer({Stage.EHLO: Flood(line)}) as server:
        smarthost = Smarthost(settings(server.port))
        (outcome,) = await smarthost.deliver(transmission())
        await smarthost.close()
    assert isinstance(outcome, Deferred)
    assert outcome.cause.text == "the reply does not end: given up after 32768 octets"
    assert server.count(b"MAIL") == 0
