"""SPF as far as it says who may send (RFC 7208), with DNS as a table."""

from ipaddress import ip_address
from typing import Any

import pytest

from relayd.rules.spf import Question, Result, Sender, check

GOOGLE = Sender(include="_spf.google.com")
NETWORK = ip_address("192.0.2.7")


def ask(zone: dict[tuple[str, str], tuple[str, ...]], domain: str, sender: Sender) -> Result:
    inquiry: Any = check(domain, sender)
    try:
        question: Question = next(inquiry)
        while True:
            question = inquiry.send(zone.get((question.type, question.name), ()))
    except StopIteration as end:
        result: Result = end.value[0]
        return result


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
        ("v=spf1 exists:%{i}.example.com -all", Result.NO),
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


def test_two_records_are_as_good_as_none() -> None:
    twice = {("TXT", "example.com"): ("v=spf1 include:_spf.google.com ~all", "v=spf1 -all")}
    assert ask(twice, "example.com", GOOGLE) is Result.ERROR
    assert ask({}, "example.com", GOOGLE) is Result.NONE
