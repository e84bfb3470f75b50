"""Whether an upstream may take over a domain's mail, asked of a DNS server that is real but for its data."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from relayd.dns.resolver import DnsUnavailable, Resolver
from relayd.rules.alignment import Finding, Sending, align
from relayd.rules.spf import Question
from relayd.store.pool import Database
from relayd.upkeep.check_alignments import check_alignments
from tests.builders import Sender, make_sender, make_upstream
from tests.integration.test_breakers import listed
from tests.peers.dns_server import DnsServer, dns_server

KEY = "v=DKIM1; k=rsa; p=" + "MIIBIjANBgkq" * 30
RELAY = Sending("example.com", (("s1", KEY),), "smtp_relay", None, None, "mx.relay.example", None, None)


@dataclass
class Dns:
    server: DnsServer
    resolver: Resolver

    async def align(self, sending: Sending) -> Finding:
        return await self.resolver.follow(align(sending))


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    async with dns_server() as server:
        yield Dns(server, Resolver(["127.0.0.1"], port=server.port, timeout_seconds=0.5))


async def test_answers_come_over_udp_and_tcp_and_are_kept(dns: Dns) -> None:
    dns.server.txt("example.com", "v=spf1 -all")
    dns.server.txt("long.example.com", "x" * 3000)
    assert await dns.resolver.ask(Question("TXT", "example.com")) == ("v=spf1 -all",)
    assert await dns.resolver.ask(Question("TXT", "long.example.com")) == ("x" * 3000,)
    asked = len(dns.server.asked)
    assert await dns.resolver.ask(Question("TXT", "example.com")) == ("v=spf1 -all",)
    assert len(dns.server.asked) == asked
    assert await dns.resolver.ask(Question("A", "example.com")) == ()
    assert await dns.resolver.ask(Question("TXT", "no.example")) == ()


async def test_mail_exchangers_come_in_their_order(dns: Dns) -> None:
    dns.server.publish("example.com", "MX", "20 b.example.com.", "10 a.example.com.")
    assert await dns.resolver.ask(Question("MX", "example.com")) == ("a.example.com", "b.example.com")


@pytest.mark.parametrize("fault", ["is_silent", "is_broken"])
async def test_silence_and_errors_are_not_taken_for_an_absent_record(dns: Dns, fault: str) -> None:
    setattr(dns.server, fault, True)
    with pytest.raises(DnsUnavailable):
        await dns.resolver.ask(Question("TXT", "example.com"))


async def test_a_published_key_is_enough_where_our_signature_survives(dns: Dns) -> None:
    dns.server.txt("s1._domainkey.example.com", KEY)
    assert (await dns.align(RELAY)).is_aligned
    assert (await dns.align(replace(RELAY, provider="google_workspace", mode="xoauth2"))).is_aligned
    # These sign anew, or not at all, what they have taken apart.
    for provider, mode in (("google_workspace", "gmail_api"), ("sendgrid", "api")):
        found = await dns.align(replace(RELAY, provider=provider, mode=mode))
        assert not found.is_aligned
        assert "does not survive" in found.why


async def test_another_key_under_our_selector_is_not_ours(dns: Dns) -> None:
    dns.server.txt("s1._domainkey.example.com", KEY.replace("p=M", "p=N"))
    assert not (await dns.align(RELAY)).is_aligned


@pytest.mark.parametrize(
    ("sending", "include"),
    [
        (replace(RELAY, provider="google_workspace", mode="gmail_api", host=None), "_spf.google.com"),
        (replace(RELAY, provider="sendgrid", mode="api", host=None), "sendgrid.net"),
        (replace(RELAY, dialect="microsoft365"), "spf.protection.outlook.com"),
        (replace(RELAY, host="email-smtp.eu-central-1.amazonaws.com"), "amazonses.com"),
        (replace(RELAY, spf_include="spf.relay.example"), "spf.relay.example"),
    ],
)
async def test_the_providers_include_in_the_spf_record_is_enough(dns: Dns, sending: Sending, include: str) -> None:
    found = await dns.align(sending)
    assert not found.is_aligned
    dns.resolver = Resolver(["127.0.0.1"], port=dns.server.port)
    dns.server.txt("example.com", "v=spf1 include:elsewhere.example ~all")
    dns.server.txt("elsewhere.example", f"v=spf1 include:{include} ~all")
    assert (await dns.align(sending)).is_aligned


async def test_without_an_include_every_address_of_the_host_has_to_be_allowed(dns: Dns) -> None:
    dns.server.txt("example.com", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::/64 -all")
    dns.server.publish("mx.relay.example", "A", "192.0.2.1")
    dns.server.publish("mx.relay.example", "AAAA", "2001:db8::1")
    assert (await dns.align(RELAY)).is_aligned
    dns.server.publish("two.relay.example", "A", "192.0.2.1", "192.0.2.2")
    found = await dns.align(replace(RELAY, host="two.relay.example"))
    assert not found.is_aligned
    assert "192.0.2.2" in found.why
    assert (await dns.align(replace(RELAY, source_address="192.0.2.1", host="two.relay.example"))).is_aligned


@pytest.fixture
async def sender(db: Database) -> Sender:
    async with db.connection() as c:
        sender = await make_sender(c, upstream="first")
        await make_upstream(c, "second")
        await c.execute(
            "UPDATE email_configurations SET provider_type = 'smtp_relay', smtp_host = '192.0.2.1', smtp_port = 25,"
            " smtp_tls = 'none', capture_directory = NULL WHERE name = 'second'"
        )
        await listed(c, sender, "first", "second", misalign=False)
    return sender


async def known(db: Database) -> dict[str, bool | None]:
    async with db.connection() as c:
        rows = await c.fetch(
            "SELECT u.name, a.is_aligned FROM upstream_alignments a JOIN email_configurations u ON u.id = a.upstream_id"
        )
    return {row["name"]: row["is_aligned"] for row in rows}


async def test_what_dns_says_is_kept_and_what_it_does_not_say_changes_nothing(
    db: Database, sender: Sender, dns: Dns
) -> None:
    dns.server.is_silent = True
    await check_alignments(db, dns.resolver)
    assert await known(db) == {"first": True, "second": None}
    dns.server.is_silent = False
    dns.server.txt("example.com", "v=spf1 ip4:192.0.2.1 -all")
    await check_alignments(db, dns.resolver, older_than=timedelta())
    assert await known(db) == {"first": True, "second": True}
    dns.server.is_broken = True
    dns.resolver = Resolver(["127.0.0.1"], port=dns.server.port, timeout_seconds=0.5)
    await check_alignments(db, dns.resolver, older_than=timedelta())
    assert await known(db) == {"first": True, "second": True}
    dns.server.is_broken = False
    dns.server.txt("example.com", "v=spf1 -all")
    await check_alignments(db, dns.resolver, older_than=timedelta())
    assert await known(db) == {"first": True, "second": False}


async def test_a_pair_is_asked_for_once_an_hour(db: Database, sender: Sender, dns: Dns) -> None:
    dns.server.txt("example.com", "v=spf1 -all")
    await check_alignments(db, dns.resolver)
    asked = len(dns.server.asked)
    await check_alignments(db, dns.resolver)
    assert len(dns.server.asked) == asked
