"""Whether receivers would take a domain's mail for its own (RFC 7489 3.1) if it came through an upstream. Pure.

relayd signs with those of the domain's keys that the upstream accepts. Where the upstream passes the signature on, a
published key is enough; where it does not, the domain's SPF record has to name what the upstream sends from.
"""

from collections.abc import Generator
from dataclasses import dataclass

from relayd.mail.dkim_record import algorithm_of, record_name
from relayd.rules.known_hosts import Dkim, known_server, signing_for
from relayd.rules.spf import Answer, IpAddress, Question, Result, Sender, check, parse_address

# These hand on what they are given as it is, our signature included.
_KEEPS_SIGNATURE = {("smtp_relay", None), ("google_workspace", "smtp-relay"), ("google_workspace", "xoauth2")}


@dataclass(frozen=True, slots=True)
class Sending:
    """A domain and an upstream. `keys` are the domain's active DKIM keys: selector and the record's value."""

    domain: str
    keys: tuple[tuple[str, str], ...]
    provider: str
    mode: str | None
    dialect: str | None
    host: str | None
    source_address: str | None
    spf_include: str | None
    dkim: str | None = None  # what the operator says that the upstream accepts


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether it aligns, and a sentence that says by what, or what to publish."""

    is_aligned: bool
    why: str


def align(sending: Sending) -> Generator[Question, Answer, Finding]:
    """Ask DNS as far as is needed."""
    if sending.provider == "capture":
        return Finding(True, "capture hands nothing on")
    by_signature = yield from _by_signature(sending)
    if by_signature.is_aligned:
        return by_signature
    by_spf = yield from _by_spf(sending)
    return by_spf if by_spf.is_aligned else Finding(False, f"{by_signature.why}; and {by_spf.why}")


def included_by(sending: Sending) -> str | None:
    """The domain that senders through this upstream include in their SPF record, if there is one."""
    if sending.spf_include is not None:
        return sending.spf_include
    return known_server(sending.provider, sending.dialect, sending.host).spf_include


def _by_signature(sending: Sending) -> Generator[Question, Answer, Finding]:
    if (sending.provider, sending.mode) not in _KEEPS_SIGNATURE:
        return Finding(False, "relayd's own signature does not survive this upstream")
    signing = signing_for(sending.provider, sending.dialect, sending.host, sending.dkim)
    if signing.dkim is Dkim.NONE:
        return Finding(False, "relayd does not sign for this upstream (--dkim none)")
    keys = [(selector, value) for selector, value in sending.keys if signing.dkim.accepts(algorithm_of(value))]
    for selector, value in keys:
        name = record_name(selector, sending.domain)
        if any(_public_key(text) == _public_key(value) for text in (yield Question("TXT", name))):
            return Finding(True, f"the DKIM key {name} is published")
    kind = "RSA DKIM key" if signing.dkim is Dkim.RSA else "DKIM key"
    if not keys:
        return Finding(False, f"{sending.domain} has no {kind}")
    return Finding(False, f"no {kind} of {sending.domain} is published (relayd domain records {sending.domain})")


def _by_spf(sending: Sending) -> Generator[Question, Answer, Finding]:
    include = included_by(sending)
    if include is not None:
        result, why = yield from check(sending.domain, Sender(include=include))
        advice = f" (include:{include} is missing)" if result in (Result.NO, Result.NONE) else ""
        return Finding(result is Result.PASS, why + advice)
    addresses = yield from _addresses(sending)
    if not addresses:
        return Finding(False, "nothing tells from which addresses it sends (relayd upstream set NAME --spf-include)")
    for address in addresses:
        result, why = yield from check(sending.domain, Sender(address=address))
        if result is not Result.PASS:
            return Finding(False, f"{why}: {address}")
    return Finding(True, why)


def _addresses(sending: Sending) -> Generator[Question, Answer, list[IpAddress]]:
    if sending.source_address is not None:
        given = parse_address(sending.source_address)
        return [given] if given else []
    host = sending.host or ""
    literal = parse_address(host)
    if literal or not host or host.startswith("/"):
        return [literal] if literal else []
    found = [*(yield Question("A", host)), *(yield Question("AAAA", host))]
    return [address for address in map(parse_address, found) if address]


def _public_key(record: str) -> str:
    tags = (tag.partition("=") for tag in record.split(";"))
    return next(("".join(value.split()) for name, _, value in tags if name.strip() == "p"), "")
