"""SPF as far as it says who may send (RFC 7208), with DNS as a table."""

from ipaddress import ip_address
from typing import Any

import pytest

from relayd.rules.spf import Question, Result, Sender, check

GOOGLE = Sender(include="_spf.google.com")
NETWORK = ip_address("192.0.2.7")


def ask(zone: dict[tuple[str, str], tuple[str, ...]], domain: str, sender: Sender) -> Result:
    return tell(zone, domain, sender)[0]


def tell(zone: dict[tuple[str, str], tuple[str, ...]], domain: str, sender: Sender) -> tuple[Result, str]:
    inquiry: Any = check(domain, sender)
    try:
        question: Question = next(inquiry)
        while True:
            question = inquiry.send(zone.get((question.type, question.name), ()))
    except StopIteration as end:
        found: tuple[Result, str] = end.value
        return found


def zone(record: str, **others: str) -> dict[tuple[str, str], tuple[str, ...]]:
    known = {("TXT", "_spf.google.com"): ("v=spf1 ip4:198.51.100.0/24 ~all",)}
    return {("TXT", "example.com"): ("v=DMARC1; p=none", record), **known} | {
        ("TXT", name.replace("_", ".")): (text,) for name, text in others.items()
    }


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 include:_spf.google.com ~all", Result.PASS),
        ("v=spf1 INCLUDE:_SPF.Google.com. -all", Result.PASS),
        ("v=spf1 a:none.example include:_spf.google.com -all", Result.PASS),
        ("v=spf1 redirect=_spf.google.com", Result.PASS),
        ("v=spf1 +all", Result.PASS),
        ("v=spf1 -all", Result.NO),
        ("v=spf1 -include:_spf.google.com ~all", Result.NO),
        ("v=spf1 -all include:_spf.google.com", Result.NO),
        ("v=spf1 include:sub.example ~all", Result.PASS),
        ("v=spf1 redirect=sub.example", Result.PASS),
        ("v=spf1 ~all redirect=sub.example", Result.NO),
        ("v=spf1 include:not.there ~all", Result.ERROR),
        ("v=spf1 ipv4:192.0.2.0/24 include:_spf.google.com", Result.ERROR),
        ("v=spf10 include:_spf.google.com", Result.NONE),
    ],
)
def test_an_include_is_found_wherever_a_receiver_would_come_to_it(record: str, result: Result) -> None:
    known = zone(record, sub_example="v=spf1 include:_spf.google.com ?all")
    assert ask(known, "example.com", GOOGLE) is result


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", Result.PASS),
        ("v=spf1 ip4:192.0.2.8 -all", Result.NO),
        ("v=spf1 ip6:2001:db8::/32 -all", Result.NO),
        ("v=spf1 a -all", Result.PASS),
        ("v=spf1 a:mail.example.com/24 -all", Result.PASS),
        ("v=spf1 a:mail.example.com -all", Result.NO),
        ("v=spf1 mx -all", Result.PASS),
        ("v=spf1 exists:%{i}.example.com -all", Result.UNKNOWN),
        ("v=spf1 exists:mail.example.com -all", Result.PASS),
        ("v=spf1 -exists:mail.example.com +all", Result.NO),
        ("v=spf1 include:sub.example -all", Result.PASS),
        ("v=spf1 ip4:192.0.2.300 -all", Result.ERROR),
        ("v=spf1 a/99 -all", Result.ERROR),
    ],
)
def test_an_address_is_found_by_network_host_and_mail_exchanger(record: str, result: Result) -> None:
    known = zone(record, sub_example="v=spf1 ip4:192.0.2.7")
    known |= {
        ("A", "example.com"): ("192.0.2.7",),
        ("A", "mail.example.com"): ("192.0.2.9",),
        ("MX", "example.com"): ("mx1.example.com", "mx2.example.com"),
        ("A", "mx1.example.com"): ("192.0.2.10",),
        ("A", "mx2.example.com"): ("192.0.2.7",),
    }
    assert ask(known, "example.com", Sender(address=NETWORK)) is result


def test_more_than_ten_look_ups_or_two_that_find_nothing_make_the_record_wrong() -> None:
    sender, allowed = Sender(address=NETWORK), "v=spf1 ip4:192.0.2.0/24"
    chain = {f"s{n}_example": f"v=spf1 include:s{n + 1}.example ~all" for n in range(12)}
    many = chain | {"s10_example": allowed}
    assert ask(zone("v=spf1 include:s0.example ~all", **many), "example.com", sender) is Result.ERROR
    enough = chain | {"s9_example": allowed}
    assert ask(zone("v=spf1 include:s0.example ~all", **enough), "example.com", sender) is Result.PASS
    void = zone("v=spf1 a:x.example a:y.example a:z.example ip4:192.0.2.0/24")
    assert ask(void, "example.com", sender) is Result.ERROR


def test_a_record_of_a_thousand_terms_is_not_read() -> None:
    def known(terms: int) -> dict[tuple[str, str], tuple[str, ...]]:
        pieces = " ".join(f"-ip4:198.18.{i // 128}.{2 * i % 256}" for i in range(terms))
        provider = {("TXT", "_spf.google.com"): ("v=spf1 ip4:198.0.0.0/8 ~all",)}
        return zone(f"v=spf1 {pieces} include:_spf.google.com") | provider

    result, why = tell(known(997), "example.com", GOOGLE)
    assert result is Result.UNKNOWN and "but of other addresses" in why
    result, why = tell(known(1000), "example.com", GOOGLE)
    assert result is Result.UNKNOWN and "more than 1000 terms" in why


def test_two_records_are_as_good_as_none() -> None:
    twice = {("TXT", "example.com"): ("v=spf1 include:_spf.google.com ~all", "v=spf1 -all")}
    assert ask(twice, "example.com", GOOGLE) is Result.ERROR
    assert ask({}, "example.com", GOOGLE) is Result.NONE


WRONG = [
    "ipv4:1.2.3.4 ip:1.2.3.4 includes:example.net spf.example.net 1.2.3.4 - ~ +-all =all a_b -a=b.example",
    "1a=b a/b=c a:b=c",
    "all:x all/8 all. -all; redirect:example.net +redirect=example.net exp:example.net x=% x=%{y} x=%{i0}",
    "ip4 ip4: ip4/24 ip4:999.1.1.1 ip4:1.2.3 ip4:01.2.3.4 ip4:1.2.3.4:25 ip4:2001:db8::1 ip4:example.com ip4:%{i}",
    "ip4:1.2.3.0/255.255.255.0 ip4:1.2.3.0/0.0.0.255 ip4:1.2.3.0/33 ip4:1.2.3.0/024 ip4:1.2.3.0/ ip4:1.2.3.0//24",
    "ip4:1.2.3.0/+8 ip4:1.2.3.0/-1 ip4:1.2.3.0/8,",
    "ip6 ip6: ip6:1.2.3.4 ip6:2001:db8::/129 ip6:2001:db8::/ ip6:2001:db8::/032 ip6:12345:: ip6:2001:db8::g",
    "ip6:fe80::1%eth0 ip6:2001:db8::1//64 ip6:[2001:db8::1]",
    "include include: include:. include:example.net/24 include:example include:192.0.2.1 include:example.net..",
    "include:example.-net include:example.net- include:%{t}",
    "a: a/ a/33 a/024 a//129 a// a/24/64 a///64 a. a:example.net/33 a:example.net/ a:192.0.2.1 a:example a:example.",
    "a:example.net:25 a:/24 a:%{d}. mx: mx/99 mx//0128 mx/24// mx:example.123 ptr: ptr/24",
    "exists exists: exists:example.net/24 exists:% exists:%a.example.net exists:%(i).example.net",
    "exists:%{i.example.net",
    "exists:%{}.example.net exists:%{a}.example.net exists:%{i0}.example.net exists:%{ir2}.example.net",
    "exists:%{i}example",
    "exists:%{i*}.example.net exists:%{c}.example.net exists:%{r}.example.net",
    "redirect= redirect=example redirect=example.net/24 redirect=%{x}.example.net exp= exp=example",
]
TWICE = [
    "redirect=a.example redirect=b.example",
    "redirect=a.example REDIRECT=a.example",
    "exp=a.example exp=a.example",
]
# Tabs and line ends part no terms; what is not ASCII is no digit and no letter.
STRANGE = ["\tmx", "mx\t", "\ta:example.net", "mx\0", "a:example.net\0", "mx\n", "a:example.net\n", "x=\x7f", "\ufffd"]
FOREIGN = ["x=\xe4", "ip4:1.2.3.0/\u0661", "include:ex\xe4mple.n\xe4t", "x\u0130=", "exists:%{\u017f}.example.net"]


@pytest.mark.parametrize("term", [*(term for line in WRONG for term in line.split()), *TWICE, *STRANGE, *FOREIGN])
def test_one_wrong_term_makes_the_whole_record_wrong_wherever_it_stands(term: str) -> None:
    """RFC 7208 4.6. Receivers read the record to its end before they look whether a term matches."""
    for record in (f"v=spf1 include:_spf.google.com {term} -all", f"v=spf1 include:_spf.google.com -all {term}"):
        result, why = tell(zone(record), "example.com", GOOGLE)
        assert result is Result.ERROR
        assert why.startswith("the SPF record of example.com has ") and why.isprintable()
    within = {"wrong_example": f"v=spf1 +all {term}"}
    assert ask(zone("v=spf1 include:wrong.example -all", **within), "example.com", GOOGLE) is Result.ERROR
    assert ask(zone("v=spf1 redirect=wrong.example", **within), "example.com", GOOGLE) is Result.ERROR


RIGHT = [
    "all +all ?all ~ALL ptr ptr:example.net PTR:%{d}",
    "ip4:1.2.3.4 -ip4:1.2.3.4 IP4:1.2.3.4/24 ip4:1.2.3.4/0 ip4:1.2.3.4/32",
    "ip6:2001:db8::1 ip6:::1 ip6:2001:DB8::/32 ip6:::/0 ip6:2001:db8::1/128 ip6:::ffff:1.2.3.4",
    "a a/24 a//64 a/24//64 a/0//0 A/32//128 a:example.net a:example.net. a:1.example a:example.net/24",
    "a:example.net//64",
    "a:example.net/24//64 a:foo:bar/baz.example.net a:x/24.example/8 a:_x.example.net a:example.xn--p1ai",
    "a:example.a-b",
    "a:example.1-2 a:example.n3t mx -mx mx/24 mx//64 mx:example.net/24//64 mx:%{d} mx:%{d}/24//64 mx:%{d1r/}/24",
    "include:example.net ?INCLUDE:Example.Net. include:%{d}._spf.example.net include:%{d2}",
    "exists:%{i}._spf.%{d2} exists:%{ir}.%{v}._spf.%{D2} exists:%{L1R+-}.%{o}.example.net exists:%{h}",
    "exists:%{s}.%{p}.example.net exists:%{d10r.-+,/_=} exists:a%%b%_c%-d.example.net exists:x%%",
    "redirect=example.net REDIRECT=example.net. redirect=%{d}.example.net exp=explain.example.net",
    "Exp=%{ir}.example.net",
    "x= x=y moo.cow-far_out=man:dog/cat x=%{c}%{r}%{t}%% mx= include=example ip4=1.2.3.4 ra=postmaster",
]
SPACED = ["", " ", "-all mx", "x=y x=z", "exp=%{d}.explain.example.net redirect=example.net"]


@pytest.mark.parametrize("term", [*(term for line in RIGHT for term in line.split()), *SPACED])
def test_what_receivers_can_read_behind_a_match_changes_nothing(term: str) -> None:
    for record in (f"v=spf1 include:_spf.google.com {term} -all", f"v=spf1 include:_spf.google.com -all {term}"):
        result, why = tell(zone(record), "example.com", GOOGLE)
        assert (result, why) == (Result.PASS, "the SPF record of example.com says include:_spf.google.com")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("v=spf1 ipv4:1.2.3.4", "has ipv4:1.2.3.4, which is no mechanism"),
        ("v=spf1 ip6:1.2.3.4", "has ip6:1.2.3.4, which is no IPv6 network (such as ip6:2001:db8::/32)"),
        ("v=spf1 -ip4:192.0.2.0/33", "has -ip4:192.0.2.0/33, which is no IPv4 network (such as ip4:192.0.2.0/24)"),
        ("v=spf1 all:x", "has all:x, but all takes nothing behind it"),
        ("v=spf1 include:localhost", "has include:localhost, which names no domain"),
        ("v=spf1 mx/33", "has mx/33, which is no prefix length"),
        ("v=spf1 redirect=a.example redirect=b.example", "has redirect=b.example, a second redirect="),
        ("v=spf1 x=%y", "has x=%y, with a character or a macro that is not allowed there"),
        ("v=spf1 a\t-all", "has 'a\\t-all', which names no domain"),
    ],
)
def test_the_term_that_is_wrong_is_named(record: str, says: str) -> None:
    why = tell(zone(record), "example.com", GOOGLE)[1]
    assert why == f"the SPF record of example.com {says}; receivers then go by none of it"


def test_a_host_is_matched_within_the_lengths_behind_its_name() -> None:
    known = {("A", "odd/24.example.com"): ("192.0.2.9",), ("AAAA", "odd/24.example.com"): ("2001:db8::1",)}
    for length, result in (("", Result.NO), ("/24", Result.PASS), ("//0", Result.NO), ("/24//128", Result.PASS)):
        record = zone(f"v=spf1 a:odd/24.example.com{length} -all") | known
        assert ask(record, "example.com", Sender(address=NETWORK)) is result
    v6 = Sender(address=ip_address("2001:db8::2"))
    for length, result in (("/0", Result.NO), ("//64", Result.PASS), ("/32//64", Result.PASS)):
        assert ask(zone(f"v=spf1 a:odd/24.example.com{length} -all") | known, "example.com", v6) is result


def test_a_redirect_to_a_macro_is_not_followed() -> None:
    record = "v=spf1 redirect=%{d}._spf.example.net"
    literal = {("TXT", "%{d}._spf.example.net"): ("v=spf1 +all",)}
    result, why = tell(zone(record) | literal, "example.com", GOOGLE)
    assert result is Result.UNKNOWN
    assert why == (
        "the SPF record of example.com redirects to %{d}._spf.example.net, which depends on the message; "
        "write include:_spf.google.com in front of it"
    )
    assert ask(zone("v=spf1 redirect=sub.example", sub_example=record), "example.com", GOOGLE) is Result.UNKNOWN
    assert ask(zone("v=spf1 include:sub.example -all", sub_example=record), "example.com", GOOGLE) is Result.UNKNOWN
