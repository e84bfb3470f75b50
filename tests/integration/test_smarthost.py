"""Delivery to a smarthost: what is on the wire, and how connections are shared."""

import asyncio
import base64
import socket
from dataclasses import replace

import pytest

from relayd.mail.address import Address
from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.smarthost import Smarthost, SmarthostSettings
from tests.peers.mail import CONTENT, PATIENT, Authority, settings, transmission
from tests.peers.smtp_server import Disconnect, Hang, ScriptedServer, unstuffed

PASSWORD = "pa55 wörd"
PLAIN = base64.b64encode(b"\0app\0" + PASSWORD.encode()).decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def deliver_one(chosen: SmarthostSettings, *recipients: str, **changes: object) -> tuple[Outcome, ...]:
    smarthost = Smarthost(chosen)
    outcomes = await smarthost.deliver(transmission(*recipients, **changes))
    await smarthost.close()
    return outcomes


# The transaction


async def test_one_transaction_carries_all_recipients() -> None:
    async with ScriptedServer(extensions=()) as server:
        outcomes = await deliver_one(settings(server.port), "one@example.net", "Two@Example.NET")
    assert [type(outcome) for outcome in outcomes] == [Sent, Sent]
    assert isinstance(outcomes[0], Sent)
    assert outcomes[0].provider_message_id == "SCRIPT1"
    assert server.commands == [
        b"EHLO relay.example.org",
        b"MAIL FROM:<app@example.org>",
        b"RCPT TO:<one@example.net>",
        b"RCPT TO:<Two@example.net>",
        b"DATA",
        b"QUIT",
    ]
    assert server.messages[0].content == CONTENT


async def test_each_recipient_has_its_own_outcome() -> None:
    replies = ["250 ok", "550 5.1.1 no such user", "450 4.2.1 greylisted", "251 forwarded"]
    async with ScriptedServer({Stage.RCPT: replies}) as server:
        outcomes = await deliver_one(settings(server.port), *(f"{name}@example.net" for name in "abcd"))
    assert [type(outcome) for outcome in outcomes] == [Sent, Failed, Deferred, Sent]
    assert outcomes[1].cause.enhanced == "5.1.1"
    assert len(server.messages[0].forward_paths) == 2


async def test_a_full_transaction_postpones_the_rest_without_asking_for_them() -> None:
    async with ScriptedServer({Stage.RCPT: ["250 ok", "452 4.5.3 too many recipients"]}) as server:
        outcomes = await deliver_one(settings(server.port), *(f"{name}@example.net" for name in "abcd"))
    assert [type(outcome) for outcome in outcomes] == [Sent, Postponed, Postponed, Postponed]
    assert server.count(b"RCPT") == 2


async def test_all_refused_means_reset_and_no_data() -> None:
    async with ScriptedServer({Stage.RCPT: ["550 5.1.1 no", "452 4.5.3 full", "250 ok"]}) as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        outcomes = await smarthost.deliver(transmission("a@example.net", "b@example.net"))
        assert [type(outcome) for outcome in outcomes] == [Failed, Deferred]
        await server.until(lambda: server.count(b"RSET") == 1)
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Sent)
        await smarthost.close()
    assert server.count(b"DATA") == 1
    assert len(server.sessions) == 1


@pytest.mark.parametrize("reply", ["554 5.7.1 spam", "250 2.0.0 queued as LAST1"])
async def test_a_hang_up_right_after_the_reply_does_not_hide_it(reply: str) -> None:
    async with ScriptedServer({Stage.DOT: Disconnect(after=reply)}) as server:
        outcomes = await deliver_one(settings(server.port))
    assert isinstance(outcomes[0], Failed if reply.startswith("5") else Sent)


@pytest.mark.parametrize("verb", [b"RSET", b"QUIT"])
async def test_a_hanging_farewell_hides_no_reply(verb: bytes) -> None:
    timeouts = replace(PATIENT, command=0.5, quit=0.5)
    async with ScriptedServer({Stage.DATA: "554 5.7.1 spam"}, silent_to=(verb,)) as server:
        outcomes = await deliver_one(settings(server.port, timeouts=timeouts))
    assert isinstance(outcomes[0], Failed)
    assert server.count(verb) == 1


async def test_the_null_reverse_path_and_odd_addresses_go_out_as_they_are() -> None:
    odd = '"a b\\"c@d"@example.net'
    async with ScriptedServer(extensions=()) as server:
        await deliver_one(settings(server.port), odd, "o'brien+x=y@[192.0.2.1]", reverse_path=None)
    assert server.commands[1:4] == [
        b"MAIL FROM:<>",
        b"RCPT TO:<" + odd.encode() + b">",
        b"RCPT TO:<o'brien+x=y@[192.0.2.1]>",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b".\r\n",
        b"..\r\n.\r\n...\r\n",
        b"a\r\n.b\r\n.\r\n",
        b"no line end",
        b"ends in a dot\r\n.",
        b"\r\n.\r\n" * 40_000,
    ],
    ids=range(6),
)
async def test_dots_survive_byte_for_byte(content: bytes) -> None:
    async with ScriptedServer() as server:
        (outcome,) = await deliver_one(settings(server.port), content=content)
    assert isinstance(outcome, Sent)
    assert unstuffed(server.messages[0].content) == content + (b"" if content.endswith(b"\r\n") else b"\r\n")


@pytest.mark.parametrize("tls", ["none", "implicit"])
async def test_twenty_megabytes_arrive_byte_for_byte(tls: str, authority: Authority) -> None:
    content = b"".join(b"%07d.\r\n.%07d\r\n" % (number, number) for number in range(1_050_000))
    context = authority.server_context("127.0.0.1") if tls == "implicit" else None
    async with ScriptedServer(implicit_tls=context) as server:
        (outcome,) = await deliver_one(settings(server.port, tls=tls, ca_file=authority.file), content=content)
    assert isinstance(outcome, Sent)
    assert unstuffed(server.messages[0].content) == content


# Extensions


async def test_extensions_that_are_offered_are_used() -> None:
    content = "Subject: é\r\n\r\né".encode()
    async with ScriptedServer(extensions=("SIZE", "8BITMIME", "SMTPUTF8")) as server:
        (outcome,) = await deliver_one(
            settings(server.port), "jörg@exämple.net", content=content, body_8bitmime=True, smtputf8=True
        )
    assert isinstance(outcome, Sent)
    assert server.commands[1] == (b"MAIL FROM:<app@example.org> SIZE=%d BODY=8BITMIME SMTPUTF8" % (len(content) + 2))
    assert server.commands[2] == "RCPT TO:<jörg@exämple.net>".encode()


async def test_a_message_over_the_offered_size_is_refused_here() -> None:
    async with ScriptedServer(extensions=("SIZE 10",)) as server:
        (outcome,) = await deliver_one(settings(server.port))
    assert isinstance(outcome, Failed)
    assert (outcome.scope, outcome.cause.stage, outcome.cause.enhanced) == (Scope.MESSAGE, Stage.LOCAL, "5.3.4")
    assert server.count(b"MAIL") == 0


@pytest.mark.parametrize("offer", ["SIZE", "SIZE 0", "SIZE many"])
async def test_a_size_without_limit_limits_nothing(offer: str) -> None:
    async with ScriptedServer(extensions=(offer,)) as server:
        (outcome,) = await deliver_one(settings(server.port))
    assert isinstance(outcome, Sent)


async def test_eight_bit_content_needs_8bitmime_and_seven_bit_content_does_not() -> None:
    async with ScriptedServer(extensions=()) as server:
        for is_declared in (True, False):
            eight_bit = {"content": b"\r\n\xe9\r\n", "body_8bitmime": is_declared}
            (refused,) = await deliver_one(settings(server.port), **eight_bit)
            assert isinstance(refused, Failed)
            assert (refused.scope, refused.cause.enhanced) == (Scope.MESSAGE, "5.6.3")
        (sent,) = await deliver_one(settings(server.port), body_8bitmime=True)
    assert isinstance(sent, Sent)


async def test_without_smtputf8_only_what_needs_it_fails() -> None:
    async with ScriptedServer(extensions=()) as server:
        chosen = settings(server.port)
        outcomes = await deliver_one(chosen, "plain@example.net", "jörg@example.net", smtputf8=True)
        (sender,) = await deliver_one(chosen, reverse_path=Address.parse("jörg@example.org"))
        (header,) = await deliver_one(chosen, content="Subject: é\r\n\r\n".encode(), smtputf8=True)
    assert [type(outcome) for outcome in outcomes] == [Sent, Failed]
    assert isinstance(outcomes[1], Failed) and isinstance(sender, Failed) and isinstance(header, Failed)
    assert (outcomes[1].scope, outcomes[1].cause.enhanced) == (Scope.RECIPIENT, "5.6.7")
    assert (sender.scope, sender.cause.enhanced) == (Scope.MESSAGE, "5.6.7")
    assert (header.scope, header.cause.enhanced) == (Scope.MESSAGE, "5.6.9")


BUECHER = "xn--bcher-kva.example"
# Sender, recipients, what is said of the message; MAIL and RCPT as they are sent, and each recipient's outcome.
UTF8 = [
    ("a@a.test", ["jörg@b.test"], {}, [], ["5.6.7"]),
    ("a@a.test", ["jörg@b.test", "jo@b.test", "δοκιμή@b.test"], {}, ["a@a.test", "jo@b.test"], ["5.6.7", "", "5.6.7"]),
    ("a@a.test", ["jo@bücher.example"], {}, ["a@a.test", f"jo@{BUECHER}"], [""]),
    (
        "a@a.test",
        ["Jo@BÜCHER.example", "x@例え.test"],
        {},
        ["a@a.test", f"Jo@{BUECHER}", "x@xn--r8jz45g.test"],
        ["", ""],
    ),
    ("a@a.test", ["jörg@bücher.example", "jo@bücher.example"], {}, ["a@a.test", f"jo@{BUECHER}"], ["5.6.7", ""]),
    ("a@bücher.example", ["jo@b.test"], {}, [f"a@{BUECHER}", "jo@b.test"], [""]),
    ("jörg@a.test", ["jo@b.test", "jörg@b.test"], {}, [], ["5.6.7", "5.6.7"]),
    ("jörg@bücher.example", ["jo@b.test"], {}, [], ["5.6.7"]),
    ("a@a.test", ["jo@b.test", "jörg@b.test"], {"content": "Subject: é\r\n\r\n".encode()}, [], ["5.6.9", "5.6.9"]),
    ("a@a.test", ["jo@bücher.example"], {"content": "Subject: é\r\n\r\n".encode()}, [], ["5.6.9"]),
    # Raw octets in a header that came without SMTPUTF8 go on as they came.
    (
        "a@a.test",
        ["jo@bücher.example"],
        {"content": b"Subject: \xe9\r\n\r\n", "smtputf8": False},
        ["a@a.test", f"jo@{BUECHER}"],
        [""],
    ),
    (
        "a@bücher.example",
        ["jörg@b.test", "jo@b.test"],
        {"content": "Subject: e\r\n\r\né\r\n".encode(), "body_8bitmime": True},
        [f"a@{BUECHER}", "jo@b.test"],
        ["5.6.7", ""],
    ),
]


@pytest.mark.parametrize(("sender", "recipients", "said", "paths", "statuses"), UTF8)
async def test_without_smtputf8_an_address_is_sent_in_ascii_or_refused_by_itself(
    sender: str, recipients: list[str], said: dict[str, object], paths: list[str], statuses: list[str]
) -> None:
    async with ScriptedServer(extensions=("8BITMIME",)) as server:
        outcomes = await deliver_one(
            settings(server.port), *recipients, **{"reverse_path": Address.parse(sender), "smtputf8": True, **said}
        )
    assert [outcome.cause.enhanced if isinstance(outcome, Failed) else "" for outcome in outcomes] == statuses
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            is_about_recipient = outcome.cause.text.startswith("the address needs")
            assert outcome.scope is (Scope.RECIPIENT if is_about_recipient else Scope.MESSAGE)
            assert ("address" in outcome.cause.text) == (outcome.cause.enhanced == "5.6.7")
    sent = [command for command in server.commands if command.startswith((b"MAIL", b"RCPT"))]
    assert all(command.isascii() and b"SMTPUTF8" not in command for command in sent)
    assert [command.partition(b"<")[2].partition(b">")[0].decode() for command in sent] == paths


@pytest.mark.parametrize(
    ("sender", "recipient", "smtputf8"),
    [
        ("a@a.test", "jo@bücher.example", False),
        ("a@bücher.example", "jo@b.test", False),
        ("a@bücher.example", "jo@bücher.example", False),
        ("a@a.test", "jörg@bücher.example", True),
        ("jörg@bücher.example", "jo@bücher.example", True),
    ],
)
async def test_smtputf8_is_asked_for_where_an_address_needs_it(sender: str, recipient: str, smtputf8: bool) -> None:
    async with ScriptedServer(extensions=("8BITMIME", "SMTPUTF8")) as server:
        (outcome,) = await deliver_one(settings(server.port), recipient, reverse_path=Address.parse(sender))
    assert isinstance(outcome, Sent)
    mail, rcpt = server.commands[1:3]
    assert mail.endswith(b" SMTPUTF8") == smtputf8
    assert (mail + rcpt).isascii() == (not smtputf8)


# TLS and AUTH


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_tls_is_used_and_verified(tls: str, authority: Authority) -> None:
    context = authority.server_context("localhost")
    by_mode = {"starttls": context} if tls == "starttls" else {"implicit_tls": context}
    async with ScriptedServer(**by_mode) as server:
        good = settings(server.port, host="localhost", tls=tls, ca_file=authority.file)
        (sent,) = await deliver_one(good)
        assert server.sessions[0].is_tls
        (wrong_name,) = await deliver_one(replace(good, host="127.0.0.1"))
        (unknown_authority,) = await deliver_one(replace(good, ca_file=None))
        (unverified,) = await deliver_one(replace(good, ca_file=None, verify_certificate=False))
    assert isinstance(sent, Sent)
    assert isinstance(unverified, Sent)
    for refused in (wrong_name, unknown_authority):
        assert isinstance(refused, Deferred)
        assert refused.scope is Scope.UPSTREAM
        assert refused.cause.stage is (Stage.STARTTLS if tls == "starttls" else Stage.CONNECT)
        assert refused.cause.text.startswith("TLS: certificate not accepted: ")
    assert "127.0.0.1" in wrong_name.cause.text
    assert len(server.messages) == 2


async def test_what_was_offered_before_tls_is_forgotten(authority: Authority) -> None:
    before = "250-scripted\n250-STARTTLS\n250 SIZE 1"
    async with ScriptedServer(
        {Stage.EHLO: [before, "250 scripted"]}, starttls=authority.server_context("localhost")
    ) as server:
        chosen = settings(server.port, host="localhost", tls="starttls", ca_file=authority.file)
        (outcome,) = await deliver_one(chosen)
    assert isinstance(outcome, Sent)
    assert server.count(b"EHLO") == 2


async def test_a_missing_starttls_stops_before_anything_is_told() -> None:
    async with ScriptedServer() as server:
        (outcome,) = await deliver_one(
            settings(server.port, tls="starttls", username="app", password=PASSWORD), content=CONTENT
        )
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage) == (Scope.UPSTREAM, Stage.STARTTLS)
    assert "does not offer STARTTLS" in outcome.cause.text
    assert server.commands == [b"EHLO relay.example.org"]


async def test_plain_speech_where_tls_is_expected_is_deferred() -> None:
    async with ScriptedServer() as server:
        (outcome,) = await deliver_one(settings(server.port, tls="implicit"))
    assert isinstance(outcome, Deferred)
    assert outcome.cause.stage is Stage.CONNECT
    assert outcome.cause.text.startswith("TLS failed")


async def test_an_unreadable_ca_file_is_told() -> None:
    (outcome,) = await deliver_one(settings(1, tls="implicit", ca_file="/nonexistent.pem"))
    assert isinstance(outcome, Deferred)
    assert "/nonexistent.pem" in outcome.cause.text


@pytest.mark.parametrize(
    ("offer", "mechanism", "expected"),
    [
        ("AUTH PLAIN LOGIN", None, [f"AUTH PLAIN {PLAIN}".encode()]),
        ("AUTH LOGIN plain", None, [f"AUTH PLAIN {PLAIN}".encode()]),
        ("AUTH LOGIN", None, [b"AUTH LOGIN", b"YXBw", base64.b64encode(PASSWORD.encode())]),
        ("AUTH=LOGIN", None, [b"AUTH LOGIN", b"YXBw", base64.b64encode(PASSWORD.encode())]),
        ("AUTH PLAIN LOGIN", "LOGIN", [b"AUTH LOGIN", b"YXBw", base64.b64encode(PASSWORD.encode())]),
        ("X-NOTHING", "PLAIN", [f"AUTH PLAIN {PLAIN}".encode()]),
    ],
)
async def test_credentials_on_the_wire(offer: str, mechanism: str | None, expected: list[bytes]) -> None:
    async with ScriptedServer(extensions=(offer,)) as server:
        chosen = settings(server.port, username="app", password=PASSWORD, allow_plaintext_auth=True)
        (outcome,) = await deliver_one(replace(chosen, auth_mechanism=mechanism))
    assert isinstance(outcome, Sent)
    assert server.commands[1 : 1 + len(expected)] == expected


@pytest.mark.parametrize("offer", ["X-NOTHING", "AUTH NTLM XOAUTH2"])
async def test_no_common_mechanism_is_deferred(offer: str) -> None:
    async with ScriptedServer(extensions=(offer,)) as server:
        chosen = settings(server.port, username="app", password=PASSWORD, allow_plaintext_auth=True)
        (outcome,) = await deliver_one(chosen)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage) == (Scope.UPSTREAM, Stage.AUTH)


async def test_a_password_is_not_sent_in_the_clear() -> None:
    async with ScriptedServer() as server:
        (outcome,) = await deliver_one(settings(server.port, username="app", password=PASSWORD))
    assert isinstance(outcome, Deferred)
    assert outcome.cause.stage is Stage.AUTH
    assert server.commands == [b"EHLO relay.example.org"]


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
@pytest.mark.parametrize("form", ["{0}", "{1}", "{2}"])
@pytest.mark.parametrize("reply", ["535 5.7.8 you said {0}", "nonsense {0}", "354 {0}", "250 {0}"])
async def test_an_echoed_password_never_leaves(stage: Stage, form: str, reply: str) -> None:
    echo = form.format(PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), PLAIN)
    async with ScriptedServer({stage: reply.format(echo)}) as server:
        chosen = settings(server.port, username="app", password=PASSWORD, allow_plaintext_auth=True)
        (outcome,) = await deliver_one(chosen)
    assert echo not in repr(outcome)
    assert PASSWORD not in repr(chosen)


# Where from, where to


async def test_source_address_and_ehlo_name_are_used() -> None:
    async with ScriptedServer() as server:
        await deliver_one(settings(server.port, source_address="127.0.0.9", ehlo_name="me.example.org"))
    assert server.sessions[0].peer == "127.0.0.9"
    assert server.commands[0] == b"EHLO me.example.org"


@pytest.mark.parametrize("host", ["::1", "[::1]", "[IPv6:::1]"])
async def test_ipv6_literals_are_honoured(host: str, authority: Authority) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with ScriptedServer(host="::1", implicit_tls=authority.server_context("::1")) as server:
        (outcome,) = await deliver_one(settings(server.port, host=host, tls="implicit", ca_file=authority.file))
    assert isinstance(outcome, Sent)


# Connections


async def test_a_connection_is_reused() -> None:
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port))
        for _ in range(5):
            (outcome,) = await smarthost.deliver(transmission())
            assert isinstance(outcome, Sent)
        await smarthost.close()
    assert len(server.sessions) == 1
    assert (server.count(b"EHLO"), server.count(b"RSET"), server.count(b"QUIT")) == (1, 0, 1)


async def test_connections_are_capped_and_all_are_served() -> None:
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port, max_connections=3, max_messages_per_connection=4))
        outcomes = await asyncio.gather(*(smarthost.deliver(transmission()) for _ in range(40)))
        await smarthost.close()
    assert all(isinstance(outcome, Sent) for (outcome,) in outcomes)
    assert len(server.messages) == 40
    assert server.most_connections <= 3
    assert len(server.sessions) >= 10


async def test_a_connection_carries_so_many_messages_and_no_more() -> None:
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port, max_messages_per_connection=2, max_connections=1))
        for _ in range(5):
            await smarthost.deliver(transmission())
        await smarthost.close()
    assert [sum(command == b"DATA" for command in session.commands) for session in server.sessions] == [2, 2, 1]
    assert server.count(b"QUIT") == 3


async def test_a_stale_idle_connection_is_not_used() -> None:
    now = [0.0]
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port, idle_seconds=60), clock=lambda: now[0])
        await smarthost.deliver(transmission())
        now[0] = 61.0
        await smarthost.deliver(transmission())
        await smarthost.close()
    assert len(server.sessions) == 2
    assert server.count(b"QUIT") == 2


@pytest.mark.parametrize("idle_seconds", [0, 0.05])
async def test_an_idle_connection_is_closed_in_time_by_itself(idle_seconds: float) -> None:
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port, idle_seconds=idle_seconds))
        await smarthost.deliver(transmission())
        await server.until(lambda: server.count(b"QUIT") == 1 and server.open_connections == 0)
        await smarthost.close()


async def test_a_connection_closed_while_idle_is_replaced() -> None:
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        await smarthost.deliver(transmission())
        await server.hang_up()
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Sent)
        await smarthost.close()
    assert len(server.messages) == 2


@pytest.mark.parametrize("death", [Disconnect(), "421 4.4.2 timeout", Disconnect(after="421 4.4.2 timeout")], ids=str)
async def test_a_reused_connection_found_dead_at_mail_is_replaced_without_a_duplicate(
    death: "str | Disconnect",
) -> None:
    async with ScriptedServer({Stage.MAIL: ["250 ok", death, "250 ok"]}) as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        for _ in range(2):
            (outcome,) = await smarthost.deliver(transmission())
            assert isinstance(outcome, Sent)
        await smarthost.close()
    assert len(server.sessions) == 2
    assert len(server.messages) == 2


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.DOT])
async def test_a_reused_connection_that_dies_later_is_not_replaced(stage: Stage) -> None:
    usual = "354 go" if stage is Stage.DATA else "250 ok"
    async with ScriptedServer({stage: [usual, Disconnect(), usual]}) as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        await smarthost.deliver(transmission())
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Uncertain if stage is Stage.DOT else Deferred)
        await smarthost.close()
    assert len(server.sessions) == 1


async def test_the_replacement_is_tried_once_only() -> None:
    async with ScriptedServer({Stage.MAIL: ["250 ok", Disconnect()]}) as server:
        smarthost = Smarthost(settings(server.port))
        await smarthost.deliver(transmission())
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Deferred)
        await smarthost.close()
    assert len(server.sessions) == 2


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.MAIL, Stage.DOT])
async def test_a_cancelled_delivery_closes_its_connection_and_frees_its_place(stage: Stage) -> None:
    async with ScriptedServer({stage: Hang()}) as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        delivery = asyncio.create_task(smarthost.deliver(transmission()))
        waiting = asyncio.create_task(smarthost.deliver(transmission()))
        reached = {
            Stage.CONNECT: lambda: server.open_connections == 1,
            Stage.MAIL: lambda: server.count(b"MAIL") == 1,
            Stage.DOT: lambda: len(server.messages) == 1,
        }
        await server.until(reached[stage])
        server.script.clear()
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        (outcome,) = await waiting
        assert isinstance(outcome, Sent)
        await smarthost.close()


async def test_a_cancelled_wait_for_a_connection_costs_nothing() -> None:
    async with ScriptedServer({Stage.MAIL: Hang()}) as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        first = asyncio.create_task(smarthost.deliver(transmission()))
        await server.until(lambda: server.count(b"MAIL") == 1)
        second = asyncio.create_task(smarthost.deliver(transmission()))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        await asyncio.wait({first, second})
        server.script.clear()
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Sent)
        await smarthost.close()


async def test_a_failure_to_open_frees_its_place() -> None:
    async with ScriptedServer({Stage.CONNECT: ["554 no", "554 no", "220 yes"]}) as server:
        smarthost = Smarthost(settings(server.port, max_connections=1))
        kinds = [type((await smarthost.deliver(transmission()))[0]) for _ in range(3)]
        await smarthost.close()
    assert kinds == [Deferred, Deferred, Sent]


async def test_after_close_a_late_delivery_still_ends_well() -> None:
    async with ScriptedServer() as server:
        smarthost = Smarthost(settings(server.port))
        await smarthost.close()
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Sent)
        await smarthost.close()
    assert server.count(b"QUIT") == 1
