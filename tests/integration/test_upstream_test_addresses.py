"""`relayd upstream test` takes the way of a delivery: every address, the same patience; it says what it waits for."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from relayd.cli import upstream_test
from relayd.control.client import ControlClient
from relayd.rules.outcome import Stage
from tests.integration.conftest import Control
from tests.peers.hosts import Hosts, closed_address, late_server, place, silent_address
from tests.peers.smtp_server import Action, Disconnect, ScriptedServer

TRIAL = {"to": "you@example.net", "sender": "app@example.org"}


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


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
