"""The door for what comes back: bounces and complaints to a bounce domain, from anyone, stored before the 250.

It relays nothing: what comes in here is kept for relayd to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from relayd.errors import StoreFull, StoreUnavailable
from relayd.intake.return_paths import ReportAddress, ReturnPaths
from relayd.mail.address import Address
from relayd.mail.reply import Reply
from relayd.store import inbound_reports
from relayd.store.inbound_reports import NewReport
from relayd.store.pool import Database

TAKEN = Reply(250, "2.0.0", "Report taken")
UNKNOWN = Reply(550, "5.1.1", "No such address for reports here")
TOO_MANY = Reply(452, "4.3.1", "Too many reports wait to be read, try again later")
UNAVAILABLE = Reply(451, "4.3.0", "Temporary server problem, try again later")
FULL = Reply(451, "4.3.1", "Insufficient system storage, try again later")


@dataclass(frozen=True, slots=True)
class IncomingReport:
    """One as it came in. `content` is as a submission's."""

    addresses: Sequence[ReportAddress]
    reverse_path: Address | None
    content: bytes = field(repr=False)
    peer: str


class ReportDoor:
    """Knows who may be written to, and stores what is."""

    def __init__(
        self, database: Database, return_paths: ReturnPaths, *, max_octets: int = 1_048_576, max_waiting: int = 10_000
    ) -> None:
        self._database = database
        self._return_paths = return_paths
        self._max_waiting = max_waiting
        self.max_octets = max_octets

    async def is_open(self) -> bool:
        """Whether any domain takes reports. Raises StoreUnavailable."""
        return await self._return_paths.are_there_any()

    async def postmaster_domain(self) -> str | None:
        """Where `<Postmaster>` alone belongs: the first bounce domain by name. Raises StoreUnavailable."""
        return await self._return_paths.first_domain()

    async def check_recipient(self, forward_path: Address) -> ReportAddress | Reply | None:
        """Where a report to it belongs, the refusal of what is no address there, None for every other domain's.

        Raises StoreUnavailable.
        """
        if not await self._return_paths.is_bounce_domain(forward_path.ascii_domain):
            return None
        return await self._return_paths.find(forward_path) or UNKNOWN

    async def accept(self, report: IncomingReport) -> Reply:
        """The final reply: 250 once it is committed, for each of its addresses."""
        stored = []
        try:
            async with self._database.transaction() as connection:
                for address in report.addresses:
                    new = NewReport(
                        client_id=address.domain.client_id,
                        source="smtp",
                        content=report.content,
                        domain_id=address.domain.domain_id,
                        forward_path=str(address.forward_path)[:320],
                        reverse_path=str(report.reverse_path or ""),
                        peer=report.peer,
                        subject_id=address.subject,
                    )
                    stored.append(await inbound_reports.add(connection, new, max_waiting=self._max_waiting))
        except StoreUnavailable as error:
            return FULL if isinstance(error, StoreFull) else UNAVAILABLE
        # Some of several: who sends them again is understood, since the same report twice changes nothing.
        return TAKEN if all(stored) else TOO_MANY
