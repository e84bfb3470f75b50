"""Whether a domain's SPF record lets a sender send (RFC 7208). Pure: it yields what it has to ask of DNS.

A sender is a set of addresses: a provider's, which are those that its own record passes, or a single one. The record
is read for the whole set at once, IPv4 and IPv6 apart. PASS means that every address of the set passes at every
receiver. What depends on the message (a macro) or on the client's name (ptr) makes the answer UNKNOWN.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from relayd.rules.spf_syntax import Directive, IpNetwork, Record, WrongTerm, parse

# RFC 7208 4.6.4.
MOST_LOOKUPS = 10
MOST_VOID_LOOKUPS = 2
MOST_HOSTS = 10
# Ours: records that providers and senders publish have a few hundred with all that they include.
MOST_TERMS = 1000

IpAddress = IPv4Address | IPv6Address

# Addresses of one version as numbers: first and last of each range, in order and apart.
_Ranges = tuple[tuple[int, int], ...]
_BITS = {4: 32, 6: 128}


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
    UNKNOWN = "unknown"  # it depends on the message, or on which of its addresses sends
    ERROR = "error"  # the record is wrong, so receivers do not go by it


class _Wrong(Exception):
    """RFC 7208's permerror; the text says why."""


class _Unknown(Exception):
    """A term whose match cannot be told beforehand; the text names it."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender: the addresses that the record of the domain `include` passes, or one address."""

    include: str | None = None
    address: IpAddress | None = None


@dataclass(slots=True)
class _Reading:
    """One reading of a record and of all that it leads to, for addresses of one version."""

    version: int
    known: dict[Question, Answer]
    most_void: int | None = MOST_VOID_LOOKUPS
    lookups: int = 0
    void: int = 0
    terms: int = 0

    def ask(self, question: Question) -> Generator[Question, Answer, Answer]:
        """Each question is asked once."""
        if question not in self.known:
            self.known[question] = yield question
        return self.known[question]

    def count(self, domain: str) -> None:
        """One term more that asks DNS."""
        self.lookups += 1
        if self.lookups > MOST_LOOKUPS:
            raise _Wrong(f"the SPF record of {domain} needs more than {MOST_LOOKUPS} look-ups, so receivers stop there")

    def ask_of_term(self, question: Question) -> Generator[Question, Answer, Answer]:
        """As ask; an answer without a record counts."""
        answer = yield from self.ask(question)
        self.void += not answer
        if self.most_void is not None and self.void > self.most_void:
            raise _Wrong(f"SPF: more than {self.most_void} look-ups find nothing, so receivers stop there")
        return answer


@dataclass(slots=True)
class _Parts:
    """What a record says of a set: the part that passes, and the first terms that pass and that refuse a part of it."""

    passed: list[tuple[int, int]] = field(default_factory=list)
    passed_by: str | None = None
    refused_by: str | None = None

    def add(self, addresses: _Ranges, why: str, *, is_pass: bool) -> None:
        """A term decides about these."""
        if is_pass:
            self.passed += addresses
            self.passed_by = self.passed_by or why
        else:
            self.refused_by = self.refused_by or why


def check(domain: str, sender: Sender) -> Generator[Question, Answer, tuple[Result, str]]:
    """The record's word on the sender, and a text that says why."""
    known: dict[Question, Answer] = {}
    passed = refused = None
    advice = ""
    try:
        if (yield from _record(domain, _Reading(4, known))) is None:
            return Result.NONE, f"{domain} has no SPF record"
        for version in _BITS:
            advice = ""
            addresses = yield from _addresses(sender, _Reading(version, known, most_void=None))
            advice = f"; write include:{sender.include} in front of it" if sender.include else ""
            found = (yield from _read(domain, addresses, _Reading(version, known))) if addresses else None
            if found is not None:
                passed, refused = passed or found.passed_by, refused or found.refused_by
    except _Wrong as error:
        return Result.ERROR, str(error)
    except _Unknown as error:
        return Result.UNKNOWN, f"{error}{advice}"
    if refused and passed:
        return Result.UNKNOWN, f"{passed}, but of other addresses of {sender.include}: {refused}{advice}"
    if refused:
        return Result.NO, refused
    if passed:
        return Result.PASS, passed
    return Result.UNKNOWN, f"the SPF record of {sender.include} passes no address"


def _addresses(sender: Sender, reading: _Reading) -> Generator[Question, Answer, _Ranges]:
    """The sender's addresses of the reading's version.

    A provider's are all that its record means to pass: what receivers' limits keep from passing shows afterwards.
    """
    if sender.include is None:
        address = sender.address
        if address is None or address.version != reading.version:
            return ()
        return ((int(address), int(address)),)
    everything = ((0, 2 ** _BITS[reading.version] - 1),)
    found = yield from _read(sender.include, everything, reading)
    if found is None:
        raise _Unknown(f"{sender.include} has no SPF record, so its addresses are not known")
    return _sorted(found.passed)


def _read(domain: str, addresses: _Ranges, reading: _Reading) -> Generator[Question, Answer, _Parts | None]:
    """What the record of a domain says of each of these; None if it has no record."""
    record = yield from _record(domain, reading)
    if record is None:
        return None
    reading.terms += len(record.directives)
    if reading.terms > MOST_TERMS:
        raise _Unknown(f"the SPF record of {domain}, with what it includes, has more than {MOST_TERMS} terms")
    parts = _Parts()
    for directive in record.directives:
        matched = yield from _matched(directive, domain, addresses, reading)
        if matched:
            why = f"the SPF record of {domain} says {directive.text}"
            parts.add(matched, why, is_pass=directive.qualifier == "+")
            addresses = _without(addresses, matched)
        if not addresses:
            return parts
    if record.redirect is None:
        parts.add(addresses, f"the SPF record of {domain} does not name it", is_pass=False)
        return parts
    reading.count(domain)
    if "%" in record.redirect:
        raise _Unknown(f"the SPF record of {domain} redirects to {record.redirect}, which depends on the message")
    further = yield from _read(record.redirect, addresses, reading)
    if further is None:
        raise _Wrong(f"the SPF record of {domain} redirects to {record.redirect}, which has none")
    if further.passed:
        why = f"the SPF record of {domain} redirects to {record.redirect}"
        parts.add(_sorted(further.passed), why, is_pass=True)
    parts.refused_by = parts.refused_by or further.refused_by
    return parts


def _record(domain: str, reading: _Reading) -> Generator[Question, Answer, Record | None]:
    found = [text for text in (yield from reading.ask(Question("TXT", domain))) if _is_spf(text)]
    if not found:
        return None
    if len(found) > 1:
        raise _Wrong(f"{domain} has {len(found)} SPF records, so receivers go by none of them")
    try:
        return parse(found[0])
    except WrongTerm as wrong:
        raise _Wrong(f"the SPF record of {domain} has {wrong}; receivers then go by none of it") from None


def _matched(
    directive: Directive, domain: str, addresses: _Ranges, reading: _Reading
) -> Generator[Question, Answer, _Ranges]:
    """Those of the addresses that a mechanism matches."""
    target = directive.domain or domain
    if directive.kind == "all":
        return addresses
    if directive.kind in ("ip4", "ip6"):
        return _within(addresses, _ranges([directive.network] if directive.network else [], reading.version))
    reading.count(domain)
    if "%" in target or directive.kind == "ptr":
        on = "message" if "%" in target else "client's name in DNS"
        raise _Unknown(f"the SPF record of {domain} says {directive.text}, which depends on the {on}")
    match directive.kind:
        case "include":
            found = yield from _read(target, addresses, reading)
            if found is None:
                raise _Wrong(f"the SPF record of {domain} includes {target}, which has none")
            return _sorted(found.passed)
        case "exists":
            # An A record counts, whichever version the client's address has (RFC 7208 5.7).
            return addresses if (yield from reading.ask_of_term(Question("A", target))) else ()
        case kind:
            hosts: Answer = (target,)
            if kind == "mx":
                hosts = yield from reading.ask_of_term(Question("MX", target))
                if len(hosts) > MOST_HOSTS:
                    text = f"{target} has {len(hosts)} mail exchangers, and receivers look up no more than {MOST_HOSTS}"
                    raise _Wrong(f"the SPF record of {domain} says {directive.text}, but {text}")
            type, bits = ("A", directive.v4_bits) if reading.version == 4 else ("AAAA", directive.v6_bits)
            networks: list[IpNetwork] = []
            for host in hosts:
                for each in (yield from reading.ask_of_term(Question(type, host))):
                    networks.append(ip_network(f"{each}/{bits}", strict=False))
            return _within(addresses, _ranges(networks, reading.version))


def _is_spf(text: str) -> bool:
    return text.split(" ", 1)[0].lower() == "v=spf1"


def _ranges(networks: Iterable[IpNetwork], version: int) -> _Ranges:
    own = (each for each in networks if each.version == version)
    return _sorted((int(each.network_address), int(each.broadcast_address)) for each in own)


def _sorted(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    """The same addresses, each once."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def _within(ranges: _Ranges, others: _Ranges) -> _Ranges:
    """Those that are in both."""
    return _sorted((max(a, c), min(b, d)) for a, b in ranges for c, d in others if a <= d and c <= b)


def _without(ranges: _Ranges, others: _Ranges) -> _Ranges:
    """Those that are not among the others."""
    left = list(ranges)
    for first, last in others:
        kept = []
        for a, b in left:
            if b < first or last < a:
                kept.append((a, b))
                continue
            if a < first:
                kept.append((a, first - 1))
            if last < b:
                kept.append((last + 1, b))
        left = kept
    return tuple(left)


def parse_address(text: str) -> IpAddress | None:
    """The address that a text is, None if it is a name."""
    try:
        return ip_address(text)
    except ValueError:
        return None
