"""What a tier allows a client, over the control socket."""

import asyncio
from typing import Any

import pytest

from relayd.control.tiers import check_room
from relayd.rules.control_events import TierRefused
from relayd.rules.tiers import Tier, by_name
from tests.integration.conftest import Control

MANY = ("one.example", "two.example", "three.example", "four.example")


@pytest.fixture
async def acme(control: Control) -> Control:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "upstreams", {"name": "out", "provider": "capture", "directory": "/m"})
    return control


async def add_domain(control: Control, domain: str) -> Any:
    return await control.request("POST", "domains", {"domain": domain, "client": "acme"})


async def add_mailbox(control: Control, address: str) -> Any:
    return await control.request("POST", "mailboxes", {"email_address": address})


async def add_upstream(control: Control, name: str, source: str | None, client: str | None = "acme") -> Any:
    body = {"name": name, "provider": "smtp_relay", "host": "smtp.example.net", "client": client}
    return await control.request("POST", "upstreams", {**body, "source_address": source})


async def share(control: Control, noun: str) -> tuple[int, int | None]:
    shown = (await control.ok("GET", "clients/acme"))[noun]
    return shown["count"], shown["limit"]


async def test_a_domain_too_many_is_refused_whole(acme: Control) -> None:
    for domain in MANY[:2]:
        assert (await add_domain(acme, domain)).status == 200
    answer = await add_domain(acme, MANY[2])
    assert answer.status == 409
    assert "client acme is in the tier Ignition, which allows 2 domains" in answer.message
    assert "relayd client set acme --tier Velocity" in answer.message
    assert await share(acme, "domains") == (2, 2)
    await acme.ok("PATCH", "clients/acme", {"tier": "Velocity"})
    assert (await add_domain(acme, MANY[2])).status == 200


async def test_a_removed_domain_makes_room(acme: Control) -> None:
    for domain in MANY[:2]:
        await add_domain(acme, domain)
    await acme.ok("DELETE", f"domains/{MANY[0]}")
    assert (await add_domain(acme, MANY[2])).status == 200


async def test_a_mailbox_too_many_is_refused(acme: Control) -> None:
    await add_domain(acme, "example.com")
    for name in "abc":
        assert (await add_mailbox(acme, f"{name}@example.com")).status == 200
    answer = await add_mailbox(acme, "d@example.com")
    assert answer.status == 409 and "Ignition, which allows 3 mailboxes" in answer.message
    assert await share(acme, "mailboxes") == (3, 3)


async def test_a_dedicated_ip_is_an_address_however_many_upstreams_have_it(acme: Control) -> None:
    assert (await add_upstream(acme, "first", "192.0.2.1")).status == 200
    assert (await add_upstream(acme, "second", "192.0.2.1")).status == 200
    answer = await add_upstream(acme, "third", "192.0.2.2")
    assert answer.status == 409 and "Ignition, which allows 1 dedicated IP" in answer.message
    assert (await add_upstream(acme, "shared", "192.0.2.3", client=None)).status == 200
    assert (await add_upstream(acme, "third", None)).status == 200
    answer = await acme.request("PATCH", "upstreams/third", {"source_address": "192.0.2.2"})
    assert answer.status == 409 and "dedicated IP" in answer.message
    await acme.ok("PATCH", "upstreams/third", {"source_address": "192.0.2.1"})
    assert await share(acme, "dedicated_ips") == (1, 1)


async def test_a_tier_below_what_there_is_is_refused_and_says_what(acme: Control) -> None:
    await acme.ok("PATCH", "clients/acme", {"tier": "Dominance"})
    for domain in MANY:
        await add_domain(acme, domain)
    answer = await acme.request("PATCH", "clients/acme", {"tier": "Velocity", "may_send_bounces": True})
    assert answer.status == 409
    assert "the tier Velocity is too small for client acme: 4 domains where 3 are allowed" in answer.message
    shown = await acme.ok("GET", "clients/acme")
    assert (shown["tier"], shown["may_send_bounces"]) == ("Dominance", False)


async def test_a_tier_that_nobody_has_set_is_refused_with_those_there_are(acme: Control) -> None:
    for method, path in (("POST", "clients"), ("PATCH", "clients/acme")):
        answer = await acme.request(method, path, {"tier": "Agency"} | ({"name": "b"} if method == "POST" else {}))
        assert answer.status == 422 and "Ignition, Velocity, Dominance" in answer.message


async def test_a_configured_tier(acme: Control) -> None:
    tiers = by_name([Tier("Agency", domains=1)])
    async with acme.db.connection() as c:
        client_id = await c.fetchval("UPDATE clients SET tier = 'Agency' RETURNING id")
        await check_room(c, tiers, client_id, "domains")
    shown = await acme.ok("GET", "clients/acme")
    assert shown["domains"] is None
    answer = await add_domain(acme, MANY[0])
    assert answer.status == 409 and "Agency, which is not configured" in answer.message


async def test_of_two_that_are_added_at_once_one_is_refused(acme: Control) -> None:
    await add_domain(acme, "example.com")
    await add_mailbox(acme, "a@example.com")
    await add_mailbox(acme, "b@example.com")
    answers = await asyncio.gather(*(add_mailbox(acme, f"{name}@example.com") for name in "cdefgh"))
    assert sorted(answer.status for answer in answers) == [200, *[409] * 5]
    assert await share(acme, "mailboxes") == (3, 3)


async def test_the_command_shows_what_is_left(acme: Control) -> None:
    await add_domain(acme, "example.com")
    ran = await acme.cli("client", "show", "acme")
    assert ran.code == 0 and "1 of 2" in ran.out and "0 of 3" in ran.out


async def test_a_refusal_is_in_the_audit_trail_and_told_to_whoever_counts(acme: Control) -> None:
    for domain in MANY[:2]:
        await add_domain(acme, domain)
    assert acme.events == []
    refused = await add_domain(acme, MANY[2])
    (event,) = acme.events
    assert isinstance(event, TierRefused)
    assert (event.noun, event.reason) == ("domains", refused.data["error"]["message"])
    (row,) = (await acme.ok("GET", "audit", params={"table": "domains"}))["items"]
    assert (row["action"], row["row"], row["actor"]) == ("operate", "refused", event.actor)
    assert row["changes"] == [{"column": "reason", "before": None, "after": event.reason}]
