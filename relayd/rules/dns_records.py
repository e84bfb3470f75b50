"""The DNS records a sending domain publishes: SPF, DKIM, DMARC and MX. What is there now is not asked here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from relayd.mail.dkim_record import record_name, record_strings

MX_PRIORITY = 10
# RFC 7208 4.6.4: a record that costs more lookups is a permanent error to receivers.
MAX_SPF_LOOKUPS = 10

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_MECHANISM = re.compile(r"(ip4|ip6|include|a|mx|exists)(?:[:/][!-~]+)?")
_LOOKUPS = frozenset({"include", "a", "mx", "exists"})
_MAIL_URI_ADDRESS = re.compile(r"[^\s@,;!%?]+@[^\s@,;!%?]+")
_DMARC_POLICIES = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """One record: `name` without a final dot, `value` unquoted and whole; `priority` only for MX."""

    type: str
    name: str
    value: str
    priority: int | None
    purpose: str


def records_for(
    domain: str,
    keys: Sequence[tuple[str, str, str]],
    *,
    spf_hosts: Sequence[str],
    mx_host: str | None,
    dmarc_policy: str = "none",
    dmarc_rua: str | None = None,
) -> tuple[DnsRecord, ...]:
    """SPF, then one DKIM record a key, then DMARC, then MX, for a domain in lower case and ASCII (`xn--`).

    `keys` are (selector, algorithm, record value); `spf_hosts` are mechanisms (`ip4:192.0.2.1`, `include:x.org`),
    none leaving SPF out, and `mx_host` None leaves MX out. Raises ValueError fit for an operator.
    """
    _check_domain(domain)
    records = [_spf(domain, spf_hosts)] if spf_hosts else []
    records += [_dkim(domain, *key) for key in keys]
    records.append(_dmarc(domain, dmarc_policy, dmarc_rua))
    if mx_host is not None:
        _check_domain(mx_host)
        records.append(DnsRecord("MX", domain, mx_host, MX_PRIORITY, "where replies and bounces to this domain go"))
    return tuple(records)


def zone_lines(records: Sequence[DnsRecord]) -> tuple[str, ...]:
    """The records as lines of a zone file (RFC 1035 5.1), TXT in quoted strings of at most 255 octets."""
    return tuple(f"{record.name}. IN {record.type} {_zone_value(record)}" for record in records)


def _spf(domain: str, hosts: Sequence[str]) -> DnsRecord:
    lookups = 0
    for host in hosts:
        mechanism = _MECHANISM.fullmatch(host)
        if mechanism is None:
            raise ValueError(f"{host!r} is not an SPF mechanism; write it as ip4:192.0.2.1 or include:x.org")
        lookups += mechanism.group(1) in _LOOKUPS
    if lookups > MAX_SPF_LOOKUPS:
        raise ValueError(f"SPF needs {lookups} DNS lookups; receivers allow {MAX_SPF_LOOKUPS}: use ip4: and ip6:")
    # Soft fail: a host that was forgotten is marked, not lost, and DMARC decides in the end.
    value = " ".join(["v=spf1", *hosts, "~all"])
    purpose = "SPF: which hosts may send; a domain has one, so merge these hosts into it if it exists"
    return DnsRecord("TXT", domain, value, None, purpose)


def _dkim(domain: str, selector: str, algorithm: str, value: str) -> DnsRecord:
    if not _SELECTOR.fullmatch(selector):
        raise ValueError(f"{selector!r} is not a DKIM selector; use letters, digits and hyphens")
    purpose = f"DKIM: the public key of selector {selector} ({algorithm})"
    return DnsRecord("TXT", record_name(selector, domain), value, None, purpose)


def _dmarc(domain: str, policy: str, rua: str | None) -> DnsRecord:
    if policy not in _DMARC_POLICIES:
        raise ValueError(f"{policy!r} is not a DMARC policy; use one of {', '.join(_DMARC_POLICIES)}")
    value = f"v=DMARC1; p={policy}"
    if rua is not None:
        # RFC 7489 6.2: these characters would end the address or add another.
        if not _MAIL_URI_ADDRESS.fullmatch(rua):
            raise ValueError(f"{rua!r} is not an address for DMARC reports")
        value += f"; rua=mailto:{rua}"
    purpose = "DMARC: what receivers do with mail that neither SPF nor DKIM vouches for"
    return DnsRecord("TXT", f"_dmarc.{domain}", value, None, purpose)


def _check_domain(domain: str) -> None:
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"{domain!r} is not a domain in lower case and ASCII; write others in their xn-- form")


def _zone_value(record: DnsRecord) -> str:
    if record.type == "MX":
        return f"{record.priority} {record.value}."
    return " ".join(f'"{_quoted(string)}"' for string in record_strings(record.value))


def _quoted(string: str) -> str:
    return string.replace("\\", "\\\\").replace('"', '\\"')
