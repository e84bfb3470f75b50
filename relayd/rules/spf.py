"""Whether a domain's SPF record lets somebody send (RFC 7208). Pure: it yields what it has to ask of DNS.

Only what a check by address or by included domain needs: macros match nothing here and no redirect is followed to one,
for they speak of one message. A record that may exceed a receiver's limits is wrong, even if some receivers would come
to a match before.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from relayd.rules.spf_syntax import Directive, Record, WrongTerm, parse

# RFC 7208 4.6.4.
MOST_LOOKUPS = 10
MOST_VOID_LOOKUPS = 2
MOST_HOSTS = 10

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Question:
    """A question to DNS; the answer is the records' texts, none if there is no such record."""

    type: str  # A, AAAA, MX or TXT
    name: str


Answer = tuple[str, ...]


class Result(StrEnum):
    """What a record says of a sender."""

    PASS = "pass"  # noqa: S105 (RFC 7208's word)
    NO = "no"  # fail, softfail or neutral
    NONE = "none"  # there is no record
    UNKNOWN = "unknown"  # it depends on the message
    ERROR = "error"  # the record is wrong, so receivers do not go by it


class _Wrong(Exception):
    """RFC 7208's permerror; the text says why."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who would send: from one of the addresses that this domain's record lets send, or from an address; neither: from
    one that no record names."""

    include: str | None = None
    address: IpAddress | None = None


@dataclass(slots=True)
class _Spent:
    lookups: int = 0
    void: int = 0


def check(domain: str, sender: Sender) -> Generator[Question, Answer, tuple[Result, str]]:
    """The record's word on the sender, and a text that says why."""
    try:
        return (yield from _check(domain, sender, _Spent()))
    except _Wrong as error:
        return Result.ERROR, str(error)


def _check(domain: str, sender: Sender, spent: _Spent) -> Generator[Question, Answer, tuple[Result, str]]:
    found = [text for text in (yield Question("TXT", domain)) if _is_spf(text)]
    if not found:
        return Result.NONE, f"{domain} has no SPF record"
    if len(found) > 1:
        raise _Wrong(f"{domain} has {len(found)} SPF records, so receivers go by none of them")
    record = _parsed(found[0], domain)
    for directive in record.directives:
        if (yield from _matches(directive, domain, sender, spent)):
            passes = directive.qualifier == "+"
            return Result.PASS if passes else Result.NO, f"the SPF record of {domain} says {directive.text}"
    redirect = record.redirect
    if redirect is not None:
        _count(spent, domain)
        if "%" in redirect:
            advice = "relayd does not follow macros; write the domain out"
            return Result.UNKNOWN, f"the SPF record of {domain} redirects to {redirect}: {advice}"
        is_named = _is_named(redirect, sender)
        result, why = yield from _check(redirect, Sender() if is_named else sender, spent)
        if result is Result.NONE:
            raise _Wrong(f"the SPF record of {domain} redirects to {redirect}, which has none")
        return (Result.PASS, f"the SPF record of {domain} redirects to {redirect}") if is_named else (result, why)
    return Result.NO, f"the SPF record of {domain} does not name it"


def _parsed(text: str, domain: str) -> Record:
    try:
        return parse(text)
    except WrongTerm as wrong:
        raise _Wrong(f"the SPF record of {domain} has {wrong}; receivers then go by none of it") from None


def _matches(directive: Directive, domain: str, sender: Sender, spent: _Spent) -> Generator[Question, Answer, bool]:
    target = directive.domain or domain
    match directive.kind:
        case "all":
            return True
        case "ip4" | "ip6":
            return sender.address is not None and directive.network is not None and sender.address in directive.network
        case "include":
            _count(spent, domain)
            if "%" in target:
                return False
            is_named = _is_named(target, sender)
            # Which of its addresses would send is not known: it may be the last, so all its look-ups count.
            result, _ = yield from _check(target, Sender() if is_named else sender, spent)
            if result is Result.NONE:
                raise _Wrong(f"the SPF record of {domain} includes {target}, which has none")
            return is_named or result is Result.PASS
        case "a" | "mx" as kind:
            _count(spent, domain)
            if "%" in target:
                return False
            hosts: Answer = (target,)
            if kind == "mx":
                hosts = yield from _ask(Question("MX", target), spent)
                if len(hosts) > MOST_HOSTS:
                    text = f"{target} has {len(hosts)} mail exchangers, and receivers look up no more than {MOST_HOSTS}"
                    raise _Wrong(f"the SPF record of {domain} says {directive.text}, but {text}")
            if sender.address is None:
                if kind == "a" and not (yield Question("A", target)) and not (yield Question("AAAA", target)):
                    _count_void(spent)
                return False
            for host in hosts:
                record = "A" if sender.address.version == 4 else "AAAA"
                bits = directive.v4_bits if sender.address.version == 4 else directive.v6_bits
                for found in (yield from _ask(Question(record, host), spent)):
                    if sender.address in ip_network(f"{found}/{bits}", strict=False):
                        return True
            return False
        case "exists":
            _count(spent, domain)
            return "%" not in target and bool((yield from _ask(Question("A", target), spent)))
        case _:  # ptr, which no longer lets anybody send that is not known otherwise (RFC 7208 5.5)
            _count(spent, domain)
            return False


def _ask(question: Question, spent: _Spent) -> Generator[Question, Answer, Answer]:
    answer = yield question
    if not answer:
        _count_void(spent)
    return answer


def _count_void(spent: _Spent) -> None:
    spent.void += 1
    if spent.void > MOST_VOID_LOOKUPS:
        raise _Wrong(f"SPF: more than {MOST_VOID_LOOKUPS} look-ups find nothing, so receivers stop there")


def _count(spent: _Spent, domain: str) -> None:
    spent.lookups += 1
    if spent.lookups > MOST_LOOKUPS:
        raise _Wrong(f"the SPF record of {domain} needs more than {MOST_LOOKUPS} look-ups, so receivers stop there")


def _is_spf(text: str) -> bool:
    return text.split(" ", 1)[0].lower() == "v=spf1"


def _is_named(name: str, sender: Sender) -> bool:
    return sender.include is not None and name.lower().rstrip(".") == sender.include.lower().rstrip(".")


def parse_address(text: str) -> IpAddress | None:
    """The address that a text is, None if it is a name."""
    try:
        return ip_address(text)
    except ValueError:
        return None
