"""An SPF record's terms (RFC 7208 12), all of them read before any is evaluated. Pure.

One wrong term anywhere makes the whole record wrong to every receiver (RFC 7208 4.6), even behind a term that matches.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

IpNetwork = IPv4Network | IPv6Network

_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_MECHANISM = re.compile(r"([+?~-]?)([A-Za-z0-9]+)(.*)", re.DOTALL)
# No zero in front; whether it is too long is looked at after.
_LENGTH = r"(?:0|[1-9][0-9]{0,2})"
# A name may hold slashes, too.
_HOSTS = re.compile(rf"(.*?)(?:/({_LENGTH}))?(?://({_LENGTH}))?", re.DOTALL)

_LITERAL = r"[!-$&-~]"
_TRANSFORMERS = r"(?:0*[1-9][0-9]*)?[Rr]?[-.+,/_=]*"  # RFC 7208 7.3: a number of labels is not zero


def _expanded(letters: str) -> str:
    return rf"%(?:[%_-]|\{{[{letters}{letters.upper()}]{_TRANSFORMERS}\}})"


# RFC 7208 7.2: c, r and t are for the text that `exp` leads to; a term that is unknown may mean such text.
_EXPANDED = _expanded("slodiphv")
_MACRO_STRING = re.compile(rf"(?:{_LITERAL}|{_expanded('slodiphvcrt')})*")
_TOP_LABEL = r"(?![0-9]+\.?\Z)[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?"
_DOMAIN = re.compile(rf"(?:{_LITERAL}|{_EXPANDED})*(?:{_EXPANDED}|\.{_TOP_LABEL}\.?)")


class WrongTerm(Exception):
    """The text names the term and says why receivers do not take it."""


@dataclass(frozen=True, slots=True)
class Directive:
    """A mechanism and what its match means. `text` is the term as published, `kind` the mechanism in lower case.

    `domain` is in lower case without a dot at its end and may hold macros; None stands for the record's own.
    """

    text: str
    qualifier: str
    kind: str
    domain: str | None = None
    network: IpNetwork | None = None  # of ip4 and ip6 alone
    v4_bits: int = 32
    v6_bits: int = 128


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says, in its order. Modifiers that are not known have no effect and are left out."""

    directives: tuple[Directive, ...]
    redirect: str | None


def parse(record: str) -> Record:
    """A record that begins with `v=spf1`. Raises WrongTerm."""
    directives: list[Directive] = []
    domains: dict[str, str] = {}
    # RFC 7208 4.6.1: nothing but spaces is between terms.
    for term in record.split(" ")[1:]:
        if found := _MODIFIER.fullmatch(term):
            name, value = found[1].lower(), found[2]
            if name in domains:
                raise _wrong(term, f"a second {name}=")
            if name in ("redirect", "exp"):
                domains[name] = _domain(term, f":{value}")
            elif not _MACRO_STRING.fullmatch(value):
                raise _wrong(term, "with a character or a macro that is not allowed there")
        elif term:
            directives.append(_directive(term))
    return Record(tuple(directives), domains.get("redirect"))


def _directive(term: str) -> Directive:
    found = _MECHANISM.fullmatch(term)
    if found is None:
        raise _wrong(term, "which is no mechanism")
    qualifier, kind, rest = found[1] or "+", found[2].lower(), found[3]
    match kind:
        case "all":
            if rest:
                raise _wrong(term, "but all takes nothing behind it")
            return Directive(term, qualifier, kind)
        case "include" | "exists":
            return Directive(term, qualifier, kind, _domain(term, rest))
        case "ptr":
            return Directive(term, qualifier, kind, _optional_domain(term, rest))
        case "a" | "mx":
            return _hosts(term, qualifier, kind, rest)
        case "ip4" | "ip6":
            return Directive(term, qualifier, kind, network=_network(term, kind, rest))
        case _:
            raise _wrong(term, "which is no mechanism")


def _hosts(term: str, qualifier: str, kind: str, rest: str) -> Directive:
    """`:name/24//64`, each part or none."""
    found = _HOSTS.fullmatch(rest)
    v4_bits, v6_bits = (int(found[2] or 32), int(found[3] or 128)) if found else (32, 128)
    if not found or v4_bits > 32 or v6_bits > 128:
        raise _wrong(term, "which is no prefix length")
    return Directive(term, qualifier, kind, _optional_domain(term, found[1]), None, v4_bits, v6_bits)


def _optional_domain(term: str, rest: str) -> str | None:
    return _domain(term, rest) if rest else None


def _domain(term: str, rest: str) -> str:
    """What is behind the colon."""
    if rest[:1] != ":" or not _DOMAIN.fullmatch(rest, 1):
        raise _wrong(term, "which names no domain")
    return rest[1:].lower().removesuffix(".")


def _network(term: str, kind: str, rest: str) -> IpNetwork:
    address, slash, bits = rest.partition("/")
    # Python takes a netmask for a length, and a zone behind an IPv6 address; receivers take neither.
    is_plain = rest[:1] == ":" and "%" not in address and (not slash or re.fullmatch(_LENGTH, bits))
    try:
        if is_plain:
            return (IPv4Network if kind == "ip4" else IPv6Network)(rest[1:], strict=False)
    except ValueError:
        pass
    version, example = ("IPv4", "192.0.2.0/24") if kind == "ip4" else ("IPv6", "2001:db8::/32")
    raise _wrong(term, f"which is no {version} network (such as {kind}:{example})")


def _wrong(term: str, why: str) -> WrongTerm:
    return WrongTerm(f"{term if term.isprintable() else ascii(term)}, {why}")
