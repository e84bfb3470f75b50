"""Routes, lists and breakers by the control socket and the command line."""

import json
from collections.abc import AsyncIterator

import pytest

from relayd.rules.breaker import BreakerTerms
from relayd.store import breakers, gauges, locks, nodes
from tests.builders import make_sender, put
from tests.integration.conftest import Control
from tests.peers.dns_server import DnsServer, dns_server

RELAY = {"provider": "smtp_relay", "host": "192.0.2.1", "port": 25, "tls": "none"}
GMAIL = {"name": "gmail", "provider": "google_workspace", "mode": "gmail_api"}


@pytest.fixture
async def dns(control: Control) -> AsyncIterator[DnsServer]:
    async with dns_server() as server:
        # The house is frozen; what it asks is opened at its first question.
        control.house.resolver.__init__(["127.0.0.1"], port=server.port, timeout_seconds=0.5)  # type: ignore[misc]
        yield server


@pytest.fixture
async def furnished(control: Control, dns: DnsServer) -> Control:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "clients", {"name": "globex"})
    for name in ("first", "second", "third"):
        await control.ok("POST", "upstreams", {"name": name, "provider": "capture", "directory": "/nowhere"})
    await control.ok(
        "POST", "upstreams", {"name": "theirs", "provider": "capture", "directory": "/x", "client": "globex"}
    )
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    await control.ok("POST", "mailboxes", {"email_address": "app@example.com", "upstream": "first"})
    return control


async def test_a_mailbox_is_given_a_list_and_then_one_upstream_again(furnished: Control) -> None:
    ran = await furnished.cli("mailbox", "set", "app@example.com", "--upstreams", "second,first")
    assert ran.code == 0, ran.err
    shown = await furnished.ok("GET", "mailboxes/app@example.com")
    assert (shown["upstream"], shown["upstreams"], shown["sends_through"]) == ("second", ["second", "first"], "second")
    ran = await furnished.cli("mailbox", "set", "app@example.com", "--upstreams", "first=70,third=30")
    assert ran.code == 0, ran.err
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["upstreams"] == ["first=70", "third=30"]
    assert "first=70, third=30" in (await furnished.cli("mailbox", "list")).out
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstream": "first"})
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["upstreams"] == ["first"]


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("first,first", "named twice"),
        ("first=70,second", "either every upstream has a weight or none has"),
        ("first,nobody", "no upstream nobody"),
        ("first,theirs", "belongs to client globex"),
        ("first=x", "is written a,b (in order) or a=70,b=30 (by weight)"),
        ("first,", "is written a,b"),
        ("first=0,second=1", "greater than or equal to 1"),
    ],
)
async def test_a_list_that_makes_no_sense_is_refused_whole(furnished: Control, listed: str, says: str) -> None:
    ran = await furnished.cli("mailbox", "set", "app@example.com", "--upstreams", listed)
    assert ran.code == 1
    assert says in ran.err
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["upstreams"] == ["first"]


async def test_a_route_is_added_shown_tested_changed_and_removed(furnished: Control) -> None:
    ran = await furnished.cli(
        *("route", "add", "partners", "--recipient-domain", ".example.net", "--upstreams", "second,first")
    )
    assert ran.code == 0, ran.err
    assert "relayd route test" in ran.err
    (listed,) = (await furnished.ok("GET", "routes"))["items"]
    assert (listed["recipient_domain"], listed["upstreams"], listed["client"]) == (
        "*.example.net",
        ["second", "first"],
        None,
    )
    tested = await furnished.cli("route", "test", "--from", "app@example.com", "--to", "you@mail.example.net")
    assert "route partners: the recipient's domain fits *.example.net" in tested.out
    assert "capture hands nothing on" in tested.out
    other = json.loads(
        (await furnished.cli("route", "test", "--from", "app@example.com", "--to", "you@example.net", "--json")).out
    )
    assert (other["route"], [each["name"] for each in other["upstreams"]]) == (None, ["first"])
    ran = await furnished.cli("route", "set", "partners", "--upstreams", "third", "--from", "example.com")
    assert ran.code == 0, ran.err
    shown = await furnished.cli("route", "show", "partners")
    assert "third" in shown.out and "example.com" in shown.out
    assert (await furnished.cli("route", "remove", "partners")).code == 0
    assert (await furnished.ok("GET", "routes"))["items"] == []
    assert "no route partners" in (await furnished.cli("route", "show", "partners")).err


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "a route says of which mail it is"),
        ({"recipient_domain": "no domain"}, "must be a domain such as example.com"),
        ({"header_from": "a@b@c"}, "malformed local part"),
        ({"mailbox": "else@example.com"}, "no mailbox else@example.com"),
        ({"mailbox": "app@example.com", "client": "globex"}, "is client acme's, not globex's"),
        (
            {"recipient_domain": "example.net", "upstreams": [{"name": "theirs"}]},
            "belongs to client globex, not to all",
        ),
        ({"recipient_domain": "example.net", "upstreams": []}, "at least 1 item"),
    ],
)
async def test_a_route_that_makes_no_sense_is_refused(furnished: Control, body: dict[str, object], says: str) -> None:
    answer = await furnished.request("POST", "routes", {"name": "r", "upstreams": [{"name": "second"}], **body})
    assert answer.status in (400, 404, 409, 422)
    assert says in answer.text
    assert (await furnished.ok("GET", "routes"))["items"] == []


async def test_an_upstream_of_a_list_or_a_route_is_not_removed(furnished: Control) -> None:
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstreams": [{"name": "first"}, {"name": "second"}]})
    await furnished.ok("POST", "routes", {"name": "r", "header_from": "example.com", "upstreams": [{"name": "third"}]})
    assert "still needed by 1 mailbox" in (await furnished.request("DELETE", "upstreams/second")).message
    refused = await furnished.request("DELETE", "upstreams/third")
    assert "still needed by 1 route" in refused.message
    assert "relayd route set NAME --upstreams OTHER" in refused.message
    await furnished.ok("DELETE", "routes/r")
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstream": "first"})
    await furnished.ok("DELETE", "upstreams/third")
    await furnished.ok("DELETE", "upstreams/second")


async def test_a_breaker_is_opened_and_closed_by_hand_and_audited(furnished: Control) -> None:
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstreams": [{"name": "first"}, {"name": "second"}]})
    ran = await furnished.cli("upstream", "breaker", "first", "open", "--reason", "moving house")
    assert ran.code == 0, ran.err
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["sends_through"] == "second"
    shown = await furnished.cli("upstream", "show", "first")
    assert "moving house" in shown.out
    assert "does not work" in (await furnished.cli("upstream", "list")).out
    assert "does not work: moving house, until its breaker is closed" in (await furnished.cli("status")).out
    assert (await furnished.cli("upstream", "breaker", "first", "close")).code == 0
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["sends_through"] == "first"
    trail = await furnished.ok("GET", "audit")
    deeds = [each for each in trail["items"] if each["table"] == "upstream_breakers"]
    assert [each["row"] for each in deeds] == ["breaker close", "breaker open"], deeds


async def test_a_changed_list_is_in_the_audit_trail(furnished: Control) -> None:
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstreams": [{"name": "first"}, {"name": "second"}]})
    await furnished.ok("POST", "routes", {"name": "r", "header_from": "example.com", "upstreams": [{"name": "third"}]})
    tables = {each["table"] for each in (await furnished.ok("GET", "audit"))["items"]}
    assert {"mailbox_upstreams", "mail_routes", "mail_route_upstreams"} <= tables


async def test_only_what_dns_vouches_for_takes_over_unless_the_operator_says_so(
    furnished: Control, dns: DnsServer
) -> None:
    await furnished.ok("POST", "upstreams", {"name": "relay", **RELAY})
    dns.txt("example.com", "v=spf1 -all")
    listed = {"upstreams": [{"name": "first"}, {"name": "relay"}]}
    await furnished.ok("PATCH", "mailboxes/app@example.com", listed)
    await furnished.ok("POST", "upstreams/first/breaker", {"state": "open"})
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["sends_through"] == "first"
    tested = (await furnished.cli("route", "test", "--from", "app@example.com", "--to", "you@example.net")).out
    assert "the SPF record of example.com says -all" in tested
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"allow_misaligned": True})
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["sends_through"] == "relay"
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"allow_misaligned": False})
    assert (await furnished.ok("GET", "mailboxes/app@example.com"))["sends_through"] == "first"


async def test_a_list_says_at_once_who_could_not_take_over_and_why(furnished: Control, dns: DnsServer) -> None:
    dns.txt("example.com", "v=spf1 -all")
    await furnished.ok("POST", "upstreams", {"name": "relay", **RELAY})
    await furnished.ok("POST", "upstreams", {"name": "grid", "provider": "sendgrid"})
    await furnished.ok("POST", "upstreams", {"name": "api", **{k: v for k, v in GMAIL.items() if k != "name"}})
    await furnished.ok("PATCH", "upstreams/third", {"is_active": False})
    for name, says in (
        ("relay", "relay cannot take over: no DKIM key of example.com is published"),
        ("third", "third cannot take over: it is not active; relayd upstream set third --active"),
        ("grid", "grid cannot take over: it has no API key"),
        ("api", "api cannot take over: it has no login"),
    ):
        ran = await furnished.cli("mailbox", "set", "app@example.com", "--upstreams", f"first,{name}")
        assert ran.code == 0, ran.err
        assert f"warning: {says}" in ran.err + ran.out
        added = await furnished.ok(
            "POST",
            "mailboxes",
            {"email_address": f"{name}@example.com", "upstreams": [{"name": "first"}, {"name": name}]},
        )
        assert len(added["warnings"]) == 1 and says in added["warnings"][0]
        await furnished.ok("DELETE", f"mailboxes/{name}@example.com")
        route = {"name": f"to-{name}", "recipient_domain": "b.test", "upstreams": [{"name": "first"}, {"name": name}]}
        made = await furnished.ok("POST", "routes", {**route, "client": "acme"})
        assert any(says in each for each in made["warnings"])
    saved = await furnished.ok(
        "PATCH",
        "mailboxes/app@example.com",
        {"upstreams": [{"name": "first"}, {"name": "relay"}], "allow_misaligned": True},
    )
    assert saved["warnings"] == []
    assert (await furnished.ok("PATCH", "mailboxes/app@example.com", {"display_name": "App"}))["warnings"] == []


async def test_failures_are_seen_before_a_breaker_opens(furnished: Control) -> None:
    await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstreams": [{"name": "first"}, {"name": "second"}]})
    async with furnished.db.connection() as c:
        mailbox = await c.fetchrow(
            "SELECT id, upstream_id FROM email_mailboxes WHERE email_address = 'app@example.com'"
        )
        assert mailbox is not None
        for _ in range(2):
            noted = breakers.Noted(1, 1, 1, None, 0, "connect: connection refused")
            await breakers.note(c, mailbox["upstream_id"], noted, BreakerTerms())
    shown = await furnished.ok("GET", "upstreams/first")
    assert (shown["breaker"], shown["consecutive_failures"]) == ("closed", 2)
    assert (shown["last_failure"], bool(shown["last_failed_at"])) == ("connect: connection refused", True)
    assert "failed 2 times" in (await furnished.cli("upstream", "list")).out
    told = (await furnished.cli("status")).out
    assert "its last 2 attempts failed" in told and "relayd upstream test first" in told
    async with furnished.db.connection() as c:
        found = await gauges.read(c)
        assert (found.failures["first"], found.failures["second"]) == (2, 0)
        await breakers.note(c, mailbox["upstream_id"], breakers.Noted(1, 0, 0, 0, None, None), BreakerTerms())
    shown = await furnished.ok("GET", "upstreams/first")
    assert (shown["consecutive_failures"], shown["last_failure"]) == (0, "connect: connection refused")
    assert "failed" not in (await furnished.cli("status")).out.partition("upstream")[2]


async def test_explain_says_what_its_upstream_failed_and_why_nobody_takes_over(
    furnished: Control, dns: DnsServer
) -> None:
    dns.txt("example.com", "v=spf1 -all")
    await furnished.ok("POST", "upstreams", {"name": "relay", **RELAY})
    async with furnished.db.connection() as c:
        sender = await make_sender(c, upstream="first", address="waiting@example.com")
    await furnished.ok("PATCH", "mailboxes/waiting@example.com", {"upstreams": [{"name": "first"}, {"name": "relay"}]})
    async with furnished.db.connection() as c:
        message = await put(c, sender)
        noted = breakers.Noted(1, 1, 1, None, 0, "connect: connection refused")
        await breakers.note(c, sender.upstream_id, noted, BreakerTerms())
    (entry,) = (await furnished.ok("GET", f"explain/{message.queue_id}"))["entries"]
    assert "upstream first failed the last attempt" in entry["sentence"]
    assert "connect: connection refused" in entry["sentence"]
    assert "relay cannot take over: no DKIM key" in entry["sentence"] and "--allow-misaligned" in entry["sentence"]
    assert entry["next_step"] == "relayd upstream test first"


async def test_explain_says_that_mail_waits_for_its_upstream_or_goes_around_it(furnished: Control) -> None:
    async with furnished.db.connection() as c:
        sender = await make_sender(c, "other@example.com", upstream="first")
        message = await put(c, sender)
        assert await breakers.trip(c, sender.upstream_id, "auth: the grant is dead", 600)
    (entry,) = (await furnished.ok("GET", f"explain/{message.queue_id}"))["entries"]
    assert entry["where"] == "broken"
    assert "upstream first does not work: auth: the grant is dead" in entry["sentence"]
    assert entry["goes_at"] is not None
    await furnished.ok("PATCH", "mailboxes/other@example.com", {"upstreams": [{"name": "first"}, {"name": "second"}]})
    (entry,) = (await furnished.ok("GET", f"explain/{message.queue_id}"))["entries"]
    assert entry["where"] == "due"
    assert "it goes through second, for first does not work: auth: the grant is dead" in entry["sentence"]
    await furnished.ok("PATCH", "mailboxes/other@example.com", {"upstream": "first"})
    await furnished.ok("POST", "upstreams/first/breaker", {"state": "open", "reason": "moving house"})
    (entry,) = (await furnished.ok("GET", f"explain/{message.queue_id}"))["entries"]
    assert entry["where"] == "stopped"
    assert entry["next_step"] == "relayd upstream breaker first close"


async def test_nothing_is_begun_that_a_node_of_an_older_version_would_do_wrong(furnished: Control) -> None:
    wishes = (
        ("POST", "routes", {"name": "net", "recipient_domain": "example.net", "upstreams": [{"name": "second"}]}),
        ("PATCH", "mailboxes/app@example.com", {"upstreams": [{"name": "first"}, {"name": "second"}]}),
        ("POST", "upstreams", GMAIL),
    )
    async with furnished.db.connection() as node, locks.held(node, locks.node_lock("other")):
        await node.execute(f"SET application_name = '{nodes.APPLICATION}'")
        for wish in wishes:
            answer = await furnished.request(*wish)
            assert answer.status == 409 and "of an older version, or that only just start: 1" in answer.message
        await furnished.ok("PATCH", "mailboxes/app@example.com", {"upstreams": [{"name": "second"}]})
        await node.execute("RESET application_name")
    async with furnished.db.connection() as node, locks.held(node, locks.node_lock("other")):
        # It has been upgraded.
        await node.execute(f"SET application_name = '{nodes.APPLICATION}'")
        async with furnished.db.transaction() as c:
            await nodes.tell(c, "other", ["0" * 8])
        for wish in wishes:
            await furnished.ok(*wish)
        await node.execute("RESET application_name")
