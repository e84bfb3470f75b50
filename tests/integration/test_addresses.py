"""A server with several addresses (RFC 5321 5.1, RFC 8305), a greeting that comes late, and servers of long ago."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relayd.cli import upstream_test
from relayd.control.client import ControlClient
from relayd.rules.outcome import Deferred, Outcome, Postponed, Scope, Sent, Stage
from relayd.upstream import addresses, handshake
from relayd.upstream.addresses import HostAddress
from relayd.upstream.connection import Connection
from relayd.upstream.handshake import open_connection
from relayd.upstream.settings import SmarthostSettings
from relayd.upstream.smarthost import Smarthost
from tests.integration.conftest import Control
from tests.peers.hosts import Hosts, closed_address, silent_address
from tests.peers.mail import PATIENT, Authority, settings, transmission
from tests.peers.smtp_server import Action, Disconnect, Hang, ScriptedServer

QUICK = replace(PATIENT, connect=1.0, greeting=1.0)
TRIAL = {"to": "you@example.net", "sender": "app@example.org"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


def place(server: ScriptedServer, host: str = "127.0.0.1") -> tuple[str, int]:
    return host, server.port


async def deliver(chosen: SmarthostSettings) -> Outcome:
    smarthost = Smarthost(chosen)
    (outcome,) = await smarthost.deliver(transmission())
    await smarthost.close()
    return outcome


# Which address is used

BAD_GREETINGS: dict[str, Action] = {
    "4xx": "421 4.3.2 busy",
    "5xx": "554 5.7.1 not you",
    "hang-up": Disconnect(),
    "silent": Hang(),
    "nonsense": "what",
    "half a reply": Disconnect(after="220-and then"),
}


async def test_an_address_that_does_not_answer_is_passed_over(hosts: Hosts) -> None:
    with silent_address("127.0.0.2") as silent:
        async with ScriptedServer() as server:
            hosts.publish("many.test", silent, place(server))
            began = time.monotonic()
            outcome = await deliver(settings(25, host="many.test"))
    # Far less than one address's own time, which is twenty seconds here.
    assert isinstance(outcome, Sent) and time.monotonic() - began < PATIENT.connect


async def test_several_addresses_that_do_not_answer_are_passed_over(hosts: Hosts) -> None:
    with silent_address("127.0.0.2") as first, silent_address("127.0.0.3") as second:
        async with ScriptedServer() as server:
            hosts.publish("many.test", first, closed_address("127.0.0.4"), second, place(server))
            assert isinstance(await deliver(settings(25, host="many.test")), Sent)


async def test_the_first_that_works_is_the_one_that_is_used(hosts: Hosts) -> None:
    async with ScriptedServer() as first, ScriptedServer() as second:
        hosts.publish("many.test", place(first), place(second))
        for _ in range(3):
            assert isinstance(await deliver(settings(25, host="many.test")), Sent)
        assert (len(first.sessions), len(second.sessions)) == (3, 0)


@pytest.mark.parametrize("action", BAD_GREETINGS.values(), ids=BAD_GREETINGS)
async def test_an_address_that_does_not_greet_is_passed_over(hosts: Hosts, action: Action) -> None:
    async with ScriptedServer({Stage.CONNECT: action}) as first, ScriptedServer() as second:
        hosts.publish("many.test", place(first), place(second))
        assert isinstance(await deliver(settings(25, host="many.test", timeouts=QUICK)), Sent)
    assert len(first.sessions) == 1 and first.commands == []


@pytest.mark.parametrize("stage", [Stage.EHLO, Stage.STARTTLS])
@pytest.mark.parametrize("action", ["451 4.3.0 later", "554 5.7.1 no", Disconnect()], ids=str)
async def test_an_address_that_fails_before_the_login_is_passed_over(
    hosts: Hosts, authority: Authority, stage: Stage, action: Action
) -> None:
    context = authority.server_context("many.test")
    async with ScriptedServer({stage: action}, starttls=context) as first, ScriptedServer(starttls=context) as second:
        hosts.publish("many.test", place(first), place(second))
        chosen = settings(25, host="many.test", tls="starttls", ca_file=authority.file)
        assert isinstance(await deliver(chosen), Sent)
    assert second.messages and not first.messages


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_an_address_with_another_certificate_is_passed_over(hosts: Hosts, authority: Authority, tls: str) -> None:
    kind = "starttls" if tls == "starttls" else "implicit_tls"
    wrong, right = authority.server_context("other.test"), authority.server_context("many.test")
    async with ScriptedServer(**{kind: wrong}) as first, ScriptedServer(**{kind: right}) as second:
        hosts.publish("many.test", place(first), place(second))
        chosen = settings(25, host="many.test", tls=tls, ca_file=authority.file)
        assert isinstance(await deliver(chosen), Sent)
        assert not first.messages
        hosts.publish("many.test", place(first))
        outcome = await deliver(chosen)
    assert "it is for other.test, not for many.test" in outcome.cause.text


async def test_opportunistic_tls_that_fails_is_done_without_at_the_same_address(
    hosts: Hosts, authority: Authority
) -> None:
    context = authority.server_context("many.test")
    async with ScriptedServer({Stage.STARTTLS: "454 4.7.0 no"}, starttls=context) as first, ScriptedServer() as second:
        hosts.publish("many.test", place(first), place(second))
        assert isinstance(await deliver(settings(25, host="many.test", tls="opportunistic")), Sent)
    assert len(first.messages) == 1 and not second.sessions


@pytest.mark.parametrize("reply", ["535 5.7.8 no", "454 4.7.0 later", "421 4.7.0 enough", "530 5.7.0 what"])
async def test_a_login_that_is_refused_is_not_tried_at_the_next_address(hosts: Hosts, reply: str) -> None:
    async with ScriptedServer({Stage.AUTH: reply}) as first, ScriptedServer({Stage.AUTH: reply}) as second:
        hosts.publish("many.test", place(first), place(second))
        login: dict[str, Any] = {"username": "app", "password": "secret", "allow_plaintext_auth": True}
        outcome = await deliver(settings(25, host="many.test", **login))
    assert outcome.cause.stage is Stage.AUTH and not second.sessions


async def test_what_is_refused_later_is_not_tried_at_the_next_address(hosts: Hosts) -> None:
    async with ScriptedServer({Stage.RCPT: "450 4.2.0 later"}) as first, ScriptedServer() as second:
        hosts.publish("many.test", place(first), place(second))
        assert isinstance(await deliver(settings(25, host="many.test")), Deferred)
        assert not second.sessions


# What is said when none works


async def test_every_address_is_named_with_what_it_said(hosts: Hosts) -> None:
    async with ScriptedServer({Stage.CONNECT: "554 5.7.1 go away"}, host="127.0.0.3") as server:
        with silent_address("127.0.0.2") as silent:
            hosts.publish("many.test", silent, closed_address("127.0.0.4"), place(server, "127.0.0.3"))
            outcome = await deliver(settings(25, host="many.test", timeouts=QUICK))
    assert isinstance(outcome, Deferred) and (outcome.scope, outcome.cause.code) == (Scope.UPSTREAM, 554)
    text = outcome.cause.text
    assert "127.0.0.2: timed out" in text and "127.0.0.4: connection refused" in text
    assert "127.0.0.3: 554 5.7.1 go away" in text


async def test_addresses_that_say_the_same_are_told_together(hosts: Hosts) -> None:
    hosts.publish("many.test", *(closed_address(f"127.0.0.{n}") for n in (2, 3, 4)))
    outcome = await deliver(settings(25, host="many.test"))
    assert outcome.cause.text == "127.0.0.2, 127.0.0.3, 127.0.0.4: connection refused"


async def test_the_one_that_let_us_come_furthest_decides_what_it_means(hosts: Hosts) -> None:
    later, gone = {Stage.EHLO: "451 4.3.0 later"}, {Stage.CONNECT: Disconnect()}
    async with ScriptedServer(later, host="127.0.0.2") as first, ScriptedServer(gone, host="127.0.0.3") as second:
        hosts.publish("many.test", place(first, "127.0.0.2"), place(second, "127.0.0.3"))
        outcome = await deliver(settings(25, host="many.test"))
    assert (outcome.cause.stage, outcome.cause.code) == (Stage.EHLO, 451)
    assert "127.0.0.2: 451 4.3.0 later" in outcome.cause.text and "127.0.0.3: connection lost" in outcome.cause.text


async def test_it_ends_in_time_however_many_addresses_say_nothing(hosts: Hosts) -> None:
    with silent_address("127.0.0.2") as first, silent_address("127.0.0.3") as second:
        hosts.publish("many.test", first, second, *[first] * 3)
        outcome = await deliver(settings(25, host="many.test", timeouts=replace(PATIENT, connect=0.3)))
    assert isinstance(outcome, Deferred) and "127.0.0.2, 127.0.0.3: timed out" in outcome.cause.text
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ScriptedServer({Stage.EHLO: Hang()})) for _ in range(3)]
        hosts.publish("many.test", *map(place, servers))
        outcome = await deliver(settings(25, host="many.test", timeouts=replace(PATIENT, opening=1.0)))
        assert len(servers[0].sessions) == 1 and not servers[1].sessions
    assert isinstance(outcome, Deferred) and outcome.cause.stage is Stage.CONNECT
    assert "no connection that is ready for mail within 1 s" in outcome.cause.text


# The order, and what is remembered


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (["::1", "::2", "10.0.0.1", "10.0.0.2"], ["::1", "10.0.0.1", "::2", "10.0.0.2"]),
        (["10.0.0.1", "::1", "::2"], ["10.0.0.1", "::1", "::2"]),
        (["10.0.0.1", "10.0.0.2", "10.0.0.3"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        (["::1"], ["::1"]),
        (["10.0.0.1", "10.0.0.1", "::1", "10.0.0.1"], ["10.0.0.1", "::1"]),
    ],
)
async def test_families_take_turns(hosts: Hosts, found: list[str], order: list[str]) -> None:
    hosts.publish("many.test", *((address, 25) for address in found))
    assert [str(each) for each in await addresses.find("many.test", 25)] == order


async def test_a_source_address_leaves_its_own_family_alone(hosts: Hosts) -> None:
    async with ScriptedServer() as server:
        hosts.publish("many.test", ("::1", 9), place(server))
        assert isinstance(await deliver(settings(25, host="many.test", source_address="127.0.0.9")), Sent)
        assert server.sessions[0].peer == "127.0.0.9"
        hosts.publish("many.test", ("::1", 9))
        outcome = await deliver(settings(25, host="many.test", source_address="127.0.0.9"))
    assert outcome.cause.text == "the source address is IPv4, and many.test has no IPv4 address"


async def test_literals_and_sockets_need_no_name(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        for host in ("127.0.0.1", "[127.0.0.1]"):
            assert isinstance(await deliver(settings(server.port, host=host)), Sent)
    async with ScriptedServer(host="::1") as server:
        for host in ("::1", "[::1]", "[IPv6:::1]"):
            assert isinstance(await deliver(settings(server.port, host=host)), Sent)
    path = str(tmp_path / "smtp")
    async with ScriptedServer(unix_socket=path):
        assert isinstance(await deliver(replace(settings(1), host=path, port=None)), Sent)


async def test_an_address_that_failed_comes_last_for_a_while(hosts: Hosts) -> None:
    async with ScriptedServer({Stage.CONNECT: Hang()}) as first, ScriptedServer() as second:
        hosts.publish("many.test", place(first), place(second))
        chosen = settings(25, host="many.test", timeouts=QUICK, max_messages_per_connection=1)
        smarthost = Smarthost(chosen)
        for _ in range(4):
            (outcome,) = await smarthost.deliver(transmission())
            assert isinstance(outcome, Sent)
        assert (len(first.sessions), len(second.sessions)) == (1, 4)
        # Once the other fails, it has its turn again.
        first.on(Stage.CONNECT, "220 back")
        second.on(Stage.CONNECT, "421 4.3.2 gone")
        (outcome,) = await smarthost.deliver(transmission())
        assert isinstance(outcome, Sent) and first.messages
        await smarthost.close()


async def test_what_is_remembered_is_forgotten(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "TROUBLE_SECONDS", 0.0)
    trouble: dict[HostAddress, float] = {}
    async with ScriptedServer() as server:
        hosts.publish("many.test", closed_address("127.0.0.2"), place(server))
        for _ in range(3):
            opened = await open_connection(settings(25, host="many.test"), None, trouble=trouble)
            assert isinstance(opened, Connection) and len(trouble) == 1
            opened.abort()


# A greeting that comes late


@asynccontextmanager
async def late_server(*pauses: float) -> AsyncIterator[tuple[str, int]]:
    """Says nothing for so long to its first connection, its second, …; takes whatever comes then."""
    left = list(pauses)
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await asyncio.sleep(left.pop(0))
            writer.write(b"220 late\r\n")
            while line := await reader.readline():
                writer.write(b"354 go\r\n" if line == b"DATA\r\n" else b"250 ok\r\n")
                if line == b"DATA\r\n":
                    await reader.readuntil(b"\r\n.\r\n")
                    writer.write(b"250 ok\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "127.0.0.1", server.sockets[0].getsockname()[1]
        assert left == []
    finally:
        server.close()
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)


async def test_a_late_greeting_is_waited_for() -> None:
    async with late_server(1.0, 5.0) as (_, port):
        assert isinstance(await deliver(settings(port, timeouts=replace(PATIENT, connect=0.3, greeting=20))), Sent)
        outcome = await deliver(settings(port, timeouts=replace(PATIENT, greeting=0.2)))
    assert isinstance(outcome, Deferred) and outcome.cause.text == "timed out: no greeting within 0.2 s"


async def test_one_that_greets_late_is_asked_again_when_no_other_works(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "GREETING_SECONDS", 0.2)
    # The other is silent, too; the slow one has a second connection, and all the time that a greeting has.
    async with late_server(5.0, 0.6) as slow, late_server(5.0) as other:
        hosts.publish("many.test", slow, other)
        opened = await open_connection(settings(25, host="many.test", timeouts=replace(PATIENT, greeting=1.5)), None)
        assert isinstance(opened, Connection)
        opened.abort()


async def test_a_late_greeting_holds_up_no_other_upstream_and_ends_with_its_own() -> None:
    async with ScriptedServer({Stage.CONNECT: Hang()}) as slow, ScriptedServer() as quick:
        waiting = Smarthost(settings(slow.port, timeouts=replace(PATIENT, greeting=300)))
        pending = [asyncio.create_task(waiting.deliver(transmission())) for _ in range(3)]
        await slow.until(lambda: len(slow.sessions) == 3)
        assert isinstance(await deliver(settings(quick.port)), Sent)
        # A stop, or other settings: nothing was sent, and nothing is in doubt.
        await waiting.close()
        outcomes = [outcome for (outcome,) in await asyncio.gather(*pending)]
    assert all(isinstance(each, Postponed) and each.scope is Scope.MESSAGE for each in outcomes)
    assert outcomes[0].cause.text.startswith("not tried: the server had not greeted yet")


# Servers of long ago


@pytest.mark.parametrize("reply", ["502 5.5.1 what", "500 unknown", "501 syntax", "504 no", "550 what", "502"])
async def test_a_server_that_knows_no_ehlo_is_greeted_with_helo(reply: str) -> None:
    async with ScriptedServer({Stage.EHLO: [reply, "250 old"]}) as server:
        assert isinstance(await deliver(settings(server.port)), Sent)
    assert server.commands[:3] == [
        b"EHLO relay.example.org",
        b"HELO relay.example.org",
        b"MAIL FROM:<app@example.org>",
    ]


@pytest.mark.parametrize("reply", ["550 5.7.1 who are you", "554 5.7.1 no", "421 4.3.2 busy", "451 later", "503 no"])
async def test_a_refusal_of_another_kind_is_not_answered_with_helo(reply: str) -> None:
    async with ScriptedServer({Stage.EHLO: reply}) as server:
        outcome = await deliver(settings(server.port))
    assert isinstance(outcome, Deferred) and server.count(b"HELO") == 0
    assert f"{outcome.cause.code} {outcome.cause.text}" == reply


async def test_a_refusal_of_both_is_told_as_that_of_ehlo() -> None:
    async with ScriptedServer({Stage.EHLO: ["502 5.5.1 no EHLO", "550 5.7.1 nor HELO"]}) as server:
        outcome = await deliver(settings(server.port))
    assert (outcome.cause.stage, outcome.cause.code, outcome.cause.text) == (Stage.EHLO, 502, "5.5.1 no EHLO")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"tls": "starttls"}, "does not offer STARTTLS, which its settings require"),
        ({"username": "app", "password": "x", "allow_plaintext_auth": True}, "does not offer AUTH"),
        ({"username": "app", "password": "x", "auth_mechanism": "CRAM-MD5"}, "does not offer AUTH"),
        ({"username": "app", "password": "x", "tls": "opportunistic"}, "does not offer AUTH"),
        ({"tls": "starttls", "username": "app", "password": "x"}, "does not offer STARTTLS"),
    ],
)
async def test_what_helo_cannot_give_is_named(changes: dict[str, Any], missing: str, authority: Authority) -> None:
    async with ScriptedServer({Stage.EHLO: ["502 5.5.2 EHLO?", "250 old"]}) as server:
        outcome = await deliver(settings(server.port, ca_file=authority.file, **changes))
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM
    assert missing in outcome.cause.text and "HELO alone (EHLO: 502 5.5.2 EHLO?)" in outcome.cause.text
    assert server.count(b"MAIL") == server.count(b"AUTH") == 0


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        (("AUTH PLAIN", "AUTH LOGIN"), "PLAIN LOGIN"),
        (("AUTH GSSAPI NTLM", "AUTH=LOGIN PLAIN"), "GSSAPI NTLM LOGIN PLAIN"),
        (("AUTH=LOGIN PLAIN", "AUTH GSSAPI"), "LOGIN PLAIN GSSAPI"),
        (("AUTH plain", "AUTH PLAIN login"), "PLAIN LOGIN"),
        (("AUTH=PLAIN",), "PLAIN"),
        (("AUTH XOAUTH2 PLAIN", "SIZE 9", "AUTH CRAM-MD5"), "XOAUTH2 PLAIN CRAM-MD5"),
    ],
)
async def test_all_lines_of_auth_count_together(lines: tuple[str, ...], mechanisms: str) -> None:
    async with ScriptedServer(extensions=lines) as server:
        login: dict[str, Any] = {"username": "app", "password": "secret", "allow_plaintext_auth": True}
        opened = await open_connection(settings(server.port, **login), None)
        assert isinstance(opened, Connection) and opened.extensions["auth"] == mechanisms
        opened.abort()


# The same by `relayd upstream test`


async def tried(control: Control, **changes: Any) -> dict[str, Any]:
    answer = await control.request("POST", "upstreams/out/test", {**TRIAL, **changes})
    assert answer.status == 200, answer.text
    steps: dict[str, Any] = {step["name"]: step for step in answer.data["steps"]}
    assert answer.data["is_ok"] == all(step["is_ok"] for step in steps.values())
    return steps


async def add(control: Control, **options: Any) -> None:
    said = {"name": "out", "provider": "smtp_relay", "host": "many.test", "port": 25, "tls": "none", **options}
    await control.ok("POST", "upstreams", said)


DEAD: dict[str, tuple[Callable[[], Any], str]] = {
    "refuses": (lambda: None, "connection refused"),
    "greets with 554": (lambda: ScriptedServer({Stage.CONNECT: "554 5.7.1 go"}, host="127.0.0.2"), "554 5.7.1 go"),
    "hangs up": (lambda: ScriptedServer({Stage.CONNECT: Disconnect()}, host="127.0.0.2"), "connection lost"),
    "refuses EHLO": (lambda: ScriptedServer({Stage.EHLO: "451 4.3.0 x"}, host="127.0.0.2"), "451 4.3.0 x"),
    "is no SMTP server": (lambda: ScriptedServer({Stage.CONNECT: "HTTP/1.1 400"}, host="127.0.0.2"), "SMTP"),
}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("kind", DEAD)
async def test_a_trial_warns_of_an_address_that_is_dead(
    control: Control, hosts: Hosts, kind: str, is_first: bool
) -> None:
    make, text = DEAD[kind]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer())
        dead = make()
        if dead is not None:
            await stack.enter_async_context(dead)
        bad = closed_address("127.0.0.2") if dead is None else place(dead, "127.0.0.2")
        found = [bad, place(server)]
        hosts.publish("many.test", *(found if is_first else reversed(found)))
        await add(control)
        steps = await tried(control)
        ran = await control.cli("upstream", "test", "out", "--to", "you@example.net", "--from", "app@example.org")
    assert list(steps) == ["dns", "tcp", "greeting", "ehlo", "auth", "mail", "rcpt", "rset", "quit"]
    shown = steps["tcp"]
    assert shown["result"] == f"connected to 127.0.0.1 port {server.port}"
    assert shown["warning"] == "1 of 2 addresses does not work; mail goes through the others"
    assert f"127.0.0.1 port {server.port}: connected in" in str(shown["details"])
    assert [line for line in shown["details"] if line.startswith("127.0.0.2 port") and text in line]
    assert ran.code == 0 and "WARN" in ran.out and "mind: 1 of 2 addresses does not work" in ran.err


async def test_a_trial_takes_the_way_of_a_delivery_round_a_silent_address(control: Control, hosts: Hosts) -> None:
    with silent_address("127.0.0.2") as silent:
        async with ScriptedServer() as server:
            hosts.publish("many.test", silent, place(server))
            await add(control)
            answer = await control.request("POST", "upstreams/out/test", {**TRIAL, "wait_seconds": 3})
            assert not answer.data["is_finished"] and answer.data["waiting"]["step"] == "other addresses"
            assert [step["name"] for step in answer.data["steps"]][-1] == "quit"


async def test_a_trial_of_which_no_address_works_names_all(control: Control, hosts: Hosts) -> None:
    async with ScriptedServer({Stage.CONNECT: "554 5.7.1 go away"}) as server:
        hosts.publish("many.test", closed_address("127.0.0.2"), place(server))
        await add(control)
        steps = await tried(control)
        assert list(steps) == ["dns", "tcp", "greeting"]
        assert "127.0.0.2 port" in str(steps["tcp"]["details"]) and "refused" in str(steps["tcp"]["details"])
        assert steps["greeting"]["result"] == "554 5.7.1 go away" and "let it in" in steps["greeting"]["cure"]
    steps = await tried(control)
    assert list(steps) == ["dns", "tcp"]
    assert steps["tcp"]["result"] == "127.0.0.2, 127.0.0.1: connection refused" and "587" in steps["tcp"]["cure"]


async def test_a_trial_of_which_every_address_works_says_so_and_warns_of_nothing(
    control: Control, hosts: Hosts
) -> None:
    async with ScriptedServer() as first, ScriptedServer(host="127.0.0.2") as second:
        hosts.publish("many.test", place(first), place(second, "127.0.0.2"))
        await add(control)
        steps = await tried(control)
        assert steps["tcp"]["warning"] is None
        # As far as before a login, and politely.
        assert [line.split()[0] for line in second.commands] == [b"EHLO", b"QUIT"]


async def test_a_trial_whose_login_is_refused_shows_that_address(control: Control, hosts: Hosts) -> None:
    script: dict[Stage, Action] = {Stage.AUTH: "535 5.7.8 no"}
    async with ScriptedServer(script) as first, ScriptedServer(script, host="127.0.0.2") as second:
        await add(control, username="app", password="x", allow_plaintext_auth=True)
        for found in ([place(first), place(second, "127.0.0.2")], [closed_address("127.0.0.3"), place(first)]):
            hosts.publish("many.test", *found)
            steps = await tried(control)
            assert list(steps) == ["dns", "tcp", "greeting", "ehlo", "auth"]
            assert steps["tcp"]["result"] == f"connected to 127.0.0.1 port {first.port}"
            assert steps["auth"]["result"] == "535 5.7.8 no"
    assert not second.sessions


async def test_a_trial_says_that_the_server_has_not_greeted_and_then_how_long_it_took(
    control: Control, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upstream_test, "_LOOK_SECONDS", 0.5)
    monkeypatch.setattr("relayd.upstream.probe.SLOW_GREETING_SECONDS", 0.5)
    async with late_server(1.5) as (host, port):
        await add(control, host=host, port=port)
        client = ControlClient((control.socket,))
        asked = {"to": "you@example.net", "sender": "app@example.org", "control": client}
        assert await asyncio.to_thread(upstream_test.try_out, "out", **asked) == 0
    told = capsys.readouterr()
    assert "the server has not greeted yet, after" in told.err and "it greets after 2 s" in told.out
    assert (await control.ok("GET", "upstreams/out"))["is_verified"]


async def test_a_trial_that_is_not_under_way_is_refused(control: Control) -> None:
    async with ScriptedServer() as server:
        await add(control, host="127.0.0.1", port=server.port)
        answer = await control.request("GET", "upstreams/out/test/nonsense")
        assert answer.status == 409 and "relayd upstream test out" in answer.text
