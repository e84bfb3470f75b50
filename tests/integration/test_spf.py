"""What an SPF record says of all addresses of a provider, asked of a DNS server in real packets (RFC 7208).

The provider's own record passes 198.51.100.0/24 and 2001:db8:1::/48, unless a case publishes another one.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from relayd.dns.resolver import Resolver
from relayd.rules.spf import Result, Sender, check
from tests.peers.dns_server import DnsServer, dns_server

PROVIDER = "spf.relay.example"
SENDER = Sender(include=PROVIDER)
NETWORKS = "v=spf1 ip4:198.51.100.0/24 ip6:2001:db8:1::/48 -all"
INCLUDED = f"include:{PROVIDER}"


@dataclass
class Dns:
    server: DnsServer
    resolver: Resolver
    spf: dict[str, str] = field(default_factory=dict)

    async def check(self, sender: Sender = SENDER) -> tuple[Result, str]:
        return await self.resolver.follow(check("a.example", sender))


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    async with dns_server() as server:
        server.txt(PROVIDER, NETWORKS)
        server.txt("other.example", "v=spf1 ip4:203.0.113.0/24 -all")
        server.txt("part.example", "v=spf1 ip4:198.51.100.64/26 -all")
        server.txt("soft.example", "v=spf1 ~all")
        server.txt("macro.example", "v=spf1 exists:%{i}.list.example -all")
        server.txt("behind.example", f"v=spf1 {INCLUDED} exists:%{{i}}.list.example -all")
        server.txt("wrong.example", "v=spf1 ipv4:192.0.2.1 -all")
        server.txt("three-void.example", "v=spf1 a:no1.example a:no2.example a:no3.example -all")
        server.publish("inside.example", "A", "198.51.100.9")
        server.publish("outside.example", "A", "203.0.113.9")
        server.publish("only-v6.example", "AAAA", "2001:db8:9::1")
        server.publish("inside-v6.example", "AAAA", "2001:db8:1::9")
        server.publish("mail.example", "MX", "10 inside.example.", "20 outside.example.")
        server.publish("void-mail.example", "MX", "10 no1.example.", "20 no2.example.", "30 no3.example.")
        yield Dns(server, Resolver(["127.0.0.1"], port=server.port))


# What stands before the provider's include, and what comes of it.
RECORDS = [
    # Certain: nothing before the include touches an address of the provider, or it passes it.
    (INCLUDED, Result.PASS),
    (f"ip4:192.0.2.0/24 {INCLUDED}", Result.PASS),
    (f"+ip4:198.51.100.7 {INCLUDED}", Result.PASS),
    (f"-ip4:203.0.113.0/24 {INCLUDED}", Result.PASS),
    (f"~ip6:2001:db8:2::/48 {INCLUDED}", Result.PASS),
    (f"?a:outside.example {INCLUDED}", Result.PASS),
    (f"-include:other.example {INCLUDED}", Result.PASS),
    (f"include:soft.example {INCLUDED}", Result.PASS),
    (f"include:part.example {INCLUDED}", Result.PASS),
    (f"exists:not.there.example {INCLUDED}", Result.PASS),
    (f"-exists:only-v6.example {INCLUDED}", Result.PASS),
    ("include:behind.example", Result.PASS),
    (f"redirect={PROVIDER}", Result.PASS),
    (f"{INCLUDED} -ip4:198.51.100.0/24 -exists:%{{i}}.x.example ptr", Result.PASS),
    (f"{INCLUDED} redirect=%{{d}}.x.example", Result.PASS),
    ("ip4:198.51.100.0/25 ip4:198.51.100.128/25 ip6:2001:db8::/32 -all", Result.PASS),
    ("ip4:198.51.0.0/16 ip6:2001:db8::/32", Result.PASS),
    (f"exp=%{{i}}.why.example {INCLUDED}", Result.PASS),
    # Some addresses of the provider pass, others do not.
    (f"-ip4:198.51.100.7 {INCLUDED}", Result.UNKNOWN),
    (f"~ip4:198.51.100.128/25 {INCLUDED}", Result.UNKNOWN),
    (f"?ip4:198.51.100.0/25 {INCLUDED}", Result.UNKNOWN),
    (f"-ip4:198.51.0.0/16 {INCLUDED}", Result.UNKNOWN),
    (f"-ip6:2001:db8:1:ff::/64 {INCLUDED}", Result.UNKNOWN),
    (f"~a:inside.example {INCLUDED}", Result.UNKNOWN),
    (f"-a:inside.example/28 {INCLUDED}", Result.UNKNOWN),
    (f"?mx:mail.example {INCLUDED}", Result.UNKNOWN),
    (f"~a:inside-v6.example {INCLUDED}", Result.UNKNOWN),
    (f"-include:part.example {INCLUDED}", Result.UNKNOWN),
    ("ip4:198.51.100.0/25 ip6:2001:db8::/32 -all", Result.UNKNOWN),
    ("ip4:198.51.100.0/24 -all", Result.UNKNOWN),
    # Nobody can tell before there is a message.
    (f"exists:%{{i}}.list.example {INCLUDED}", Result.UNKNOWN),
    (f"-exists:%{{l}}.list.example {INCLUDED}", Result.UNKNOWN),
    (f"include:%{{d}}.spf.example {INCLUDED}", Result.UNKNOWN),
    (f"a:%{{h}} {INCLUDED}", Result.UNKNOWN),
    (f"~mx:%{{o}}.example {INCLUDED}", Result.UNKNOWN),
    (f"include:macro.example {INCLUDED}", Result.UNKNOWN),
    (f"ptr {INCLUDED}", Result.UNKNOWN),
    (f"-ptr:a.example {INCLUDED}", Result.UNKNOWN),
    (f"ip4:192.0.2.0/24 redirect=%{{d}}.{PROVIDER}", Result.UNKNOWN),
    # None of them passes.
    (f"-all {INCLUDED}", Result.NO),
    (f"?{INCLUDED}", Result.NO),
    ("ip4:192.0.2.0/24 ~all", Result.NO),
    (f"-exists:inside.example {INCLUDED}", Result.NO),
    ("include:soft.example -all", Result.NO),
    # Receivers go by none of it, or stop before they come to the include.
    (f"a:no1.example a:no2.example a:no3.example {INCLUDED}", Result.ERROR),
    (f"a:only-v6.example a:only-v6.example a:only-v6.example {INCLUDED}", Result.ERROR),
    (f"mx:no1.example exists:no2.example a:no3.example {INCLUDED}", Result.ERROR),
    (f"mx:void-mail.example {INCLUDED}", Result.ERROR),
    (f"include:three-void.example {INCLUDED}", Result.ERROR),
    (f"a:no1.example a:no2.example {INCLUDED}", Result.PASS),
    (f"include:no1.example {INCLUDED}", Result.ERROR),
    (f"include:wrong.example {INCLUDED}", Result.ERROR),
    (f"{INCLUDED} ip4:192.0.2.0/33", Result.ERROR),
    ("redirect=no1.example", Result.ERROR),
    (" ".join(["a:outside.example"] * 10) + f" {INCLUDED}", Result.ERROR),
    (" ".join(["a:outside.example", "a:inside-v6.example"] * 5) + f" {INCLUDED}", Result.ERROR),
]


@pytest.mark.parametrize(("terms", "result"), RECORDS, ids=[terms[:70] for terms, _ in RECORDS])
async def test_a_record_passes_only_what_every_receiver_passes(dns: Dns, terms: str, result: Result) -> None:
    dns.server.txt("a.example", f"v=spf1 {terms}")
    found, why = await dns.check()
    assert found is result, why
    assert why.isprintable() and "example" in why + terms


# What the provider publishes, in a record that includes it.
PROVIDERS = [
    ("v=spf1 ip4:198.51.100.0/24 ~all", Result.PASS),
    ("v=spf1 -ip4:198.51.100.7 ip4:198.51.100.0/24 -all", Result.PASS),
    ("v=spf1 a:inside.example include:other.example ?all", Result.PASS),
    ("v=spf1 redirect=other.example", Result.PASS),
    ("v=spf1 +all", Result.PASS),
    ("v=spf1 a:inside.example a:outside.example mx:mail.example -all", Result.PASS),
    ("v=spf1 ip4:198.51.100.0/24 exists:%{i}.list.example -all", Result.UNKNOWN),
    ("v=spf1 include:macro.example ~all", Result.UNKNOWN),
    ("v=spf1 ip4:198.51.100.0/24 ptr -all", Result.UNKNOWN),
    ("v=spf1 -all", Result.UNKNOWN),
    ("a text that is no SPF record", Result.UNKNOWN),
    ("v=spf1 a:only-v6.example a:only-v6.example a:only-v6.example ip4:198.51.100.7 -all", Result.ERROR),
    ("v=spf1 " + " ".join(["a:inside.example"] * 10) + " ip4:198.51.100.0/24 -all", Result.ERROR),
    ("v=spf1 ip4:198.51.100.0/24 ip4: -all", Result.ERROR),
    ("v=spf1 include:spf.relay.example ip4:198.51.100.0/24 -all", Result.ERROR),
]


@pytest.mark.parametrize(("published", "result"), PROVIDERS, ids=[text[:60] for text, _ in PROVIDERS])
async def test_the_addresses_of_a_provider_are_those_that_its_own_record_passes(
    dns: Dns, published: str, result: Result
) -> None:
    dns.server.txt(PROVIDER, published)
    dns.server.txt("a.example", f"v=spf1 ip4:192.0.2.1 {INCLUDED} ~all")
    found, why = await dns.check()
    assert found is result, why


async def test_two_records_and_no_record_are_no_answer(dns: Dns) -> None:
    assert await dns.check() == (Result.NONE, "a.example has no SPF record")
    dns.server.publish("b.example", "TXT", f'"v=spf1 {INCLUDED} -all"', '"v=spf1 -all"')
    found, why = await dns.resolver.follow(check("b.example", SENDER))
    assert found is Result.ERROR and "2 SPF records" in why


async def test_what_hides_the_answer_is_named_with_what_to_do(dns: Dns) -> None:
    told = {
        f"-ip4:198.51.100.7 {INCLUDED}": "says -ip4:198.51.100.7; write include:spf.relay.example in front of it",
        f"ptr {INCLUDED}": "ptr, which depends on the client's name in DNS; write include:spf.relay.example in front",
        f"exists:%{{i}}.x.example {INCLUDED}": "exists:%{i}.x.example, which depends on the message; write include:",
    }
    for number, (terms, text) in enumerate(told.items()):
        dns.server.txt(f"n{number}.example", f"v=spf1 {terms} -all")
        _, why = await dns.resolver.follow(check(f"n{number}.example", SENDER))
        assert text in why
    # Of the provider's own record nothing is for the sender to write.
    dns.server.txt("silent.example", "v=spf1 ptr -all")
    dns.server.txt("a.example", "v=spf1 include:silent.example -all")
    _, why = await dns.check(Sender(include="silent.example"))
    assert why == "the SPF record of silent.example says ptr, which depends on the client's name in DNS"


@pytest.mark.parametrize(
    ("address", "result"),
    [
        ("198.51.100.9", Result.PASS),
        ("203.0.113.9", Result.NO),
        ("2001:db8:1::9", Result.PASS),
        ("2001:db8:2::9", Result.NO),
        ("192.0.2.1", Result.NO),
    ],
)
async def test_a_single_address_is_read_like_a_providers(dns: Dns, address: str, result: Result) -> None:
    dns.server.txt("a.example", f"v=spf1 -ip4:192.0.2.0/24 -include:other.example {INCLUDED} -all")
    assert (await dns.check(Sender(address=ip_address(address))))[0] is result
