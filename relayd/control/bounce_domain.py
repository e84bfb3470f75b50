"""A domain's bounce domain: whether it can be one, what to publish for it."""

from collections.abc import Iterator

from relayd.control.route import Publishing
from relayd.errors import BadValue, Refusal
from relayd.rules.dns_records import MX_PRIORITY, DnsRecord
from relayd.store import bounce_domains
from relayd.store.connection import Connection
from relayd.store.domains import DomainRecord
from relayd.store.violations import explained

# RFC 5321 4.5.3.1.3: with its token before it, it has to fit into a path.
LONGEST = 200


async def save(connection: Connection, domain: DomainRecord, wanted: str | None) -> None:
    """Give it to a domain that was found to be changed. Raises Refusal, BadValue."""
    if wanted is not None:
        if len(wanted) > LONGEST:
            raise BadValue(f"a bounce domain has at most {LONGEST} characters")
        if wanted == domain.domain or await bounce_domains.is_sending(connection, wanted):
            raise Refusal(
                f"{wanted} sends mail itself, so its MX has to go on taking its own mail",
                hint=f"use a name of its own below it: --bounce-domain bounces.{domain.domain}",
            )
    with explained(taken=f"{wanted} is the bounce domain of another domain already"):
        await bounce_domains.save(connection, domain.id, wanted)


def records(domain: DomainRecord, publishing: Publishing) -> tuple[DnsRecord, ...]:
    """What to publish for the bounce domain: its MX, and its SPF, which is asked for instead of the domain's own."""
    name = domain.bounce_domain
    if name is None:
        return ()
    found = []
    if publishing.report_mx_host is not None:
        purpose = "where bounces and complaints come back: a host on which relayd listens on port 25"
        found.append(DnsRecord("MX", name, publishing.report_mx_host, MX_PRIORITY, purpose))
    if publishing.spf_hosts:
        value = " ".join(["v=spf1", *publishing.spf_hosts, "~all"])
        found.append(DnsRecord("TXT", name, value, None, "SPF of the reverse-path, which receivers look at"))
    return tuple(found)


def notes(domain: DomainRecord, publishing: Publishing) -> Iterator[str]:
    """What is left out, and what to think of."""
    name = domain.bounce_domain
    if name is None:
        return
    if publishing.report_mx_host is None:
        yield f"MX of {name}: say which host takes reports in publish.report_mx_host of relayd's configuration"
    if not name.endswith(f".{domain.domain}"):
        yield (
            f"SPF of {name} does not align with From {domain.domain}, of which it is no subdomain: DMARC then rests on "
            "DKIM alone"
        )
