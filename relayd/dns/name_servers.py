"""Name servers, by dnspython: one question at a time, answers kept as long as their records say."""

from collections.abc import Sequence

from dns.asyncresolver import Resolver as AsyncResolver
from dns.exception import DNSException
from dns.rdatatype import RdataType
from dns.resolver import NXDOMAIN, LRUCache, NoAnswer, NoResolverConfiguration
from dns.rrset import RRset

from relayd.dns.unavailable import DnsUnavailable
from relayd.rules.spf import Answer, Question

MOST_KEPT = 10_000


class NameServers:
    """These; none: those of the system. Raises DnsUnavailable where it has none."""

    def __init__(self, addresses: Sequence[str], *, port: int, timeout_seconds: float) -> None:
        try:
            self._resolver = AsyncResolver(configure=not addresses)
        except (NoResolverConfiguration, OSError) as error:
            raise DnsUnavailable("this host knows no name server; name one in [dns] nameservers") from error
        if addresses:
            self._resolver.nameservers = list(addresses)
            self._resolver.port = port
        self._resolver.lifetime = timeout_seconds
        self._resolver.cache = LRUCache(MOST_KEPT)

    async def ask(self, question: Question) -> Answer:
        """The records' texts; none if there is no such record or name. Raises DnsUnavailable."""
        try:
            answer = await self._resolver.resolve(question.name, question.type, search=False)
        except (NXDOMAIN, NoAnswer):
            return ()
        except (DNSException, OSError, ValueError) as error:
            # A name that is none, out of somebody's SPF record, has no records either; but nobody shall rely on that.
            raise DnsUnavailable(f"DNS does not answer for {question.name}: {type(error).__name__}") from error
        return _texts(answer.rrset) if answer.rrset is not None else ()


def _texts(records: RRset) -> Answer:
    match records.rdtype:
        case RdataType.TXT:
            # RFC 7208 3.3: the strings of a record are joined without a space.
            return tuple(b"".join(each.strings).decode("ascii", "replace") for each in records)
        case RdataType.MX:
            preferred = sorted(records, key=lambda each: each.preference)
            return tuple(each.exchange.to_text(omit_final_dot=True).lower() for each in preferred)
        case _:
            return tuple(each.to_text() for each in records)
