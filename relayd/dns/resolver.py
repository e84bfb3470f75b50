"""Ask DNS. Answers are kept as long as their records say; silence is an error, a missing record is none."""

from collections.abc import Generator, Sequence
from typing import TypeVar

from dns.asyncresolver import Resolver as AsyncResolver
from dns.exception import DNSException
from dns.rdatatype import RdataType
from dns.resolver import NXDOMAIN, LRUCache, NoAnswer, NoResolverConfiguration
from dns.rrset import RRset

from relayd.errors import RelaydError
from relayd.rules.spf import Answer, Question

Found = TypeVar("Found")

MOST_KEPT = 10_000


class DnsUnavailable(RelaydError):
    """DNS did not answer, or with an error: nothing is known."""


class Resolver:
    """Asks these name servers; none: those of the system."""

    def __init__(self, nameservers: Sequence[str] = (), *, port: int = 53, timeout_seconds: float = 5.0) -> None:
        self._nameservers = list(nameservers)
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._resolver: AsyncResolver | None = None

    async def ask(self, question: Question) -> Answer:
        """The records' texts; none if there is no such record or name. Raises DnsUnavailable."""
        try:
            answer = await self._opened().resolve(question.name, question.type, search=False)
        except (NXDOMAIN, NoAnswer):
            return ()
        except (DNSException, OSError, ValueError) as error:
            # A name that is none, out of somebody's SPF record, has no records either; but nobody shall rely on that.
            raise DnsUnavailable(f"DNS does not answer for {question.name}: {type(error).__name__}") from error
        return _texts(answer.rrset) if answer.rrset is not None else ()

    async def follow(self, inquiry: Generator[Question, Answer, Found]) -> Found:
        """Answer what it asks until it knows. Raises DnsUnavailable."""
        try:
            question = next(inquiry)
            while True:
                question = inquiry.send(await self.ask(question))
        except StopIteration as end:
            found: Found = end.value
            return found

    def _opened(self) -> AsyncResolver:
        if self._resolver is None:
            try:
                resolver = AsyncResolver(configure=not self._nameservers)
            except (NoResolverConfiguration, OSError) as error:
                raise DnsUnavailable("this host knows no name server; name one in [dns] nameservers") from error
            if self._nameservers:
                resolver.nameservers = list(self._nameservers)
                resolver.port = self._port
            resolver.lifetime = self._timeout_seconds
            resolver.cache = LRUCache(MOST_KEPT)
            self._resolver = resolver
        return self._resolver


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
