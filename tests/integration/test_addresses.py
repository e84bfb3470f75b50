"""A server with several addresses (RFC 5321 5.1, RFC 8305), a greeting that comes late, and servers of long ago."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relayd.daemon.probes import Probes
from relayd.daemon.providers import Providers
from relayd.rules.outcome import Deferred, Outcome, Postponed, Scope, Sent, Stage
from relayd.store import upstreams
from relayd.upstream import addresses, handshake
from relayd.upstream.addresses import HostAddress
from relayd.upstream.connection import Connection
from relayd.upstream.handshake import open_connection
from relayd.upstream.settings import SmarthostSettings, Timeouts
from relayd.upstream.smarthost import Smarthost
from tests.integration.conftest import Control
from tests.peers.hosts import Hosts, closed_address, late_server, place, silent_address
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
        async with asyncio.timeout(20):
            outcomes = [outcome for (outcome,) in await asyncio.gather(*pending)]
    assert all(isinstance(each, Postponed) and each.scope is Scope.MESSAGE for each in outcomes)
    assert outcomes[0].cause.text.startswith("not tried: the server had not greeted yet")


KINDS: dict[str, dict[str, Any]] = {
    "smtp_relay": {"provider": "smtp_relay", "host": "smtp.test"},
    "by token": {
        "provider": "smtp_relay",
        "host": "smtp.test",
        "auth_mechanism": "XOAUTH2",
        "oauth_account": "a@b.test",
    },
    "sendgrid": {"provider": "sendgrid", "api_key": "key"},
    "google relay": {"provider": "google_workspace"},
    "google xoauth2": {"provider": "google_workspace", "mode": "xoauth2"},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_delivery_and_a_trial_have_the_same_patience(control: Control, kind: str) -> None:
    await control.ok("POST", "upstreams", {"name": "out", **KINDS[kind]})
    configured = Timeouts(greeting=77.0, opening=200.0)
    house: dict[str, Any] = {"hostname": "relay.test", "emit": lambda event: None, "timeouts": configured}
    providers = Providers(control.db, control.house.seal, index=0, workers=1, **house)
    ((_, build),) = await providers.load()
    async with control.db.connection() as connection:
        record = await upstreams.find(connection, "out")
    for each in (build(), Probes(control.db, control.house.seal, **house).of(record)):
        assert each._settings.timeouts == configured  # type: ignore[union-attr]


async def test_a_name_server_that_says_nothing_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    outcome = await deliver(settings(25, host="many.test", timeouts=replace(PATIENT, connect=0.2)))
    assert outcome.cause.text == "host name cannot be resolved: no answer within 0.2 s"
