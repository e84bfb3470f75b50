"""Ask DNS. Answers are kept as long as their records say; silence is an error, a missing record is none."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

from relayd.dns.unavailable import DnsUnavailable
from relayd.rules.spf import Answer, Question

if TYPE_CHECKING:
    from relayd.dns.name_servers import NameServers

__all__ = ["DnsUnavailable", "Resolver"]

Found = TypeVar("Found")


class Resolver:
    """Asks these name servers; none: those of the system."""

    def __init__(self, nameservers: Sequence[str] = (), *, port: int = 53, timeout_seconds: float = 5.0) -> None:
        self._nameservers = tuple(nameservers)
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._opened: NameServers | None = None

    async def ask(self, question: Question) -> Answer:
        """The records' texts; none if there is no such record or name. Raises DnsUnavailable."""
        if self._opened is None:
            # At the first question: the library takes long to load, and few nodes ever ask.
            from relayd.dns.name_servers import NameServers

            self._opened = NameServers(self._nameservers, port=self._port, timeout_seconds=self._timeout_seconds)
        return await self._opened.ask(question)

    async def follow(self, inquiry: Generator[Question, Answer, Found]) -> Found:
        """Answer what it asks until it knows. Raises DnsUnavailable."""
        try:
            question = next(inquiry)
            while True:
                question = inquiry.send(await self.ask(question))
        except StopIteration as end:
            found: Found = end.value
            return found
