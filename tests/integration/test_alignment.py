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


RSA = ("r1", KEY)
ED25519 = ("e1", "v=DKIM1; k=ed25519; p=" + "A" * 44)
SES = replace(RELAY, keys=(RSA, ED25519), host="email-smtp.eu-west-1.amazonaws.com")


@pytest.mark.parametrize(
    ("sending", "published", "why"),
    [
        (SES, [RSA], "the DKIM key r1._domainkey.example.com is published"),
        (SES, [ED25519], "no RSA DKIM key of example.com is published (relayd domain records example.com)"),
        (replace(SES, keys=(ED25519,)), [ED25519], "example.com has no RSA DKIM key"),
        (replace(SES, dkim="all"), [ED25519], "the DKIM key e1._domainkey.example.com is published"),
        (replace(SES, dkim="none"), [RSA, ED25519], "relayd does not sign for this upstream (--dkim none)"),
        (replace(SES, host="mx.relay.example", dkim="rsa"), [ED25519], "no RSA DKIM key of example.com is published"),
        (replace(SES, host="mx.relay.example"), [ED25519], "the DKIM key e1._domainkey.example.com is published"),
        (
            replace(SES, host="mx.relay.example", dialect="ses"),
            [ED25519],
            "no RSA DKIM key of example.com is published",
        ),
    ],
)
async def test_a_key_counts_where_it_signs(
    dns: Dns, sending: Sending, published: list[tuple[str, str]], why: str
) -> None:
    for selector, value in published:
        dns.server.txt(f"{selector}._domainkey.example.com", value)
    found = await dns.align(sending)
    assert found.is_aligned == why.startswith("the DKIM key")
    assert found.why.startswith(why)


async def test_a_customers_own_server_at_amazon_is_not_ses(dns: Dns) -> None:
    host = "ec2-192-0-2-1.eu-west-1.compute.amazonaws.com"
    dns.server.txt("example.com", "v=spf1 include:amazonses.com -all")
    dns.server.txt("amazonses.com", "v=spf1 ip4:198.51.100.0/24 -all")
    dns.server.publish(host, "A", "192.0.2.1")
    found = await dns.align(replace(RELAY, host=host))
    assert not found.is_aligned and "amazonses.com" not in found.why
    assert (await dns.align(replace(RELAY, host="email-smtp-fips.us-east-1.amazonaws.com"))).is_aligned


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
    dns.server.txt(include, "v=spf1 ip4:198.51.100.0/24 ~all")
    assert (await dns.align(sending)).is_aligned


def publish_exchangers(server: DnsServer, count: int) -> None:
    """As many of example.com; the second is the relay."""
    names = [f"mx{number:02}.example.com" for number in range(count)]
    server.publish("example.com", "MX", *(f"{number} {name}." for number, name in enumerate(names)))
    for number, name in enumerate(names):
        server.publish(name, "A", f"192.0.2.{number}")


BY_INCLUDE = replace(RELAY, spf_include="spf.relay.example")
BY_ADDRESS = replace(RELAY, source_address="192.0.2.1")


@pytest.mark.parametrize("sending", [BY_INCLUDE, BY_ADDRESS], ids=["by include", "by address"])
async def test_ten_mail_exchangers_are_looked_up_and_eleven_make_the_record_wrong(dns: Dns, sending: Sending) -> None:
    """RFC 7208 4.6.4."""
    dns.server.txt("example.com", "v=spf1 mx include:spf.relay.example -all")
    dns.server.txt("spf.relay.example", "v=spf1 ip4:198.51.100.0/24 -all")
    publish_exchangers(dns.server, 10)
    assert (await dns.align(sending)).is_aligned
    publish_exchangers(dns.server, 11)
    dns.resolver = Resolver(["127.0.0.1"], port=dns.server.port)
    found = await dns.align(sending)
    assert not found.is_aligned
    assert "says mx, but example.com has 11 mail exchangers, and receivers look up no more than 10" in found.why


@pytest.mark.parametrize("kind", ["include", "redirect"])
@pytest.mark.parametrize(("within", "is_aligned"), [(4, True), (5, False)])
async def test_what_the_provider_includes_counts_among_ten_look_ups(
    dns: Dns, kind: str, within: int, is_aligned: bool
) -> None:
    """The address that a message comes from may be in the last of them."""
    own = " ".join(f"a:n{number}.example" for number in range(5))
    for number in range(5):
        dns.server.publish(f"n{number}.example", "A", f"192.0.2.{number}")
    dns.server.txt("example.com", f"v=spf1 {own} {'include:' if kind == 'include' else 'redirect='}spf.relay.example")
    names = [f"net{number}.relay.example" for number in range(within)]
    dns.server.txt("spf.relay.example", f"v=spf1 {' '.join(f'include:{name}' for name in names)} ~all")
    for number, name in enumerate(names):
        dns.server.txt(name, f"v=spf1 ip4:198.51.100.{number} ~all")
    found = await dns.align(BY_INCLUDE)
    assert found.is_aligned == is_aligned
    assert is_aligned or "needs more than 10 look-ups" in found.why


@pytest.mark.parametrize(
    ("record", "is_aligned"),
    [
        ("a:no1.example mx:no2.example include:spf.relay.example", True),
        ("a:no1.example mx:no2.example exists:no3.example include:spf.relay.example", False),
        ("a:six.example a:six.example include:spf.relay.example", True),
        ("a:six.example a:six.example a:six.example include:spf.relay.example", False),
        ("include:spf.relay.example a:no1.example a:no2.example a:no3.example", True),
        ("include:not.there.example include:spf.relay.example", False),
        ("include:misspelt.example", False),
    ],
)
async def test_two_look_ups_may_find_nothing_before_an_include(dns: Dns, record: str, is_aligned: bool) -> None:
    dns.server.txt("example.com", f"v=spf1 {record} -all")
    dns.server.txt("spf.relay.example", "v=spf1 ip4:198.51.100.0/24 ~all")
    dns.server.publish("six.example", "AAAA", "2001:db8::1")
    sending = replace(RELAY, spf_include="misspelt.example") if "misspelt" in record else BY_INCLUDE
    found = await dns.align(sending)
    assert found.is_aligned == is_aligned
    assert "is missing" not in found.why


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
