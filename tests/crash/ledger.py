"""The ledger: compare what the load was told, what the sink took and what the database says. Pure.

lost       answered 250, and neither delivered nor in the queue nor failed with a row in the log
duplicate  delivered again without a doubt in the log; `doubted` counts those that a doubt foretold
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from tests.crash.journal import Handed
from tests.crash.message import compose, digest
from tests.crash.recorder import Delivered
from tests.crash.snapshot import Entry, Snapshot


@dataclass
class Verdict:
    """Counts, and for each kind of fault what is wrong, a line each."""

    acknowledged: int = 0
    unanswered: int = 0
    delivered: int = 0  # messages of the load, each once
    queued: int = 0
    bounced: int = 0
    doubts: int = 0
    doubted: int = 0  # deliveries too many, each with its doubt
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def count(self, kind: str) -> int:
        return len(self.faults.get(kind, ()))

    @property
    def is_clean(self) -> bool:
        return not any(self.faults.values())

    def lines(self, most: int = 5) -> Iterator[str]:
        """What is wrong, a few of each kind."""
        for kind, what in self.faults.items():
            yield from (f"{kind}: {each}" for each in what[:most])
            if len(what) > most:
                yield f"{kind}: and {len(what) - most} more"

    def __str__(self) -> str:
        counts = (
            f"{self.acknowledged} acknowledged, {self.delivered} delivered, {self.bounced} bounced,"
            f" {self.queued} queued, {self.unanswered} unanswered, {self.doubted} duplicates with a doubt"
        )
        return "\n".join([counts, *self.lines()])


def compare(
    journal: Sequence[Handed],
    arrivals: Sequence[Delivered],
    database: Snapshot,
    *,
    octets: int = 600,
    nobody_died: bool = False,
    nothing_lapsed: bool = False,
) -> Verdict:
    """`octets` is the load's. Where `nobody_died` every result was heard, so each must be in the log; where besides
    `nothing_lapsed`, no lease given away under its holder, there is no reason for a doubt."""
    verdict = Verdict(
        acknowledged=sum(handed.is_acknowledged for handed in journal),
        unanswered=sum(handed.code == 0 for handed in journal),
    )
    deliveries = Counter((arrival.queue_id, arrival.recipient) for arrival in arrivals)
    entries = {(str(entry.queue_id), entry.recipient): entry for entry in database.entries}
    verdict.delivered = len({key for key in deliveries if key[0] and not _is_bounce(entries.get(key))})
    _look_for_losses(verdict, journal, deliveries, entries)
    for key, entry in entries.items():
        _judge_entry(verdict, entry, deliveries[key])
        if nobody_died:
            _look_for_unlogged(verdict, entry, deliveries[key])
        if nobody_died and nothing_lapsed and entry.doubts:
            verdict.faults["needless doubt"].append(f"{_name(entry)}: {entry.doubts}, though nobody died")
    _look_for_strangers(verdict, journal, arrivals, entries, octets)
    _look_at_bounces(verdict, database.entries)
    _look_at_usage(verdict, arrivals, database, entries)
    return verdict


Key = tuple[str | None, str]


def _look_for_losses(
    verdict: Verdict, journal: Iterable[Handed], deliveries: "Counter[Key]", entries: dict[tuple[str, str], Entry]
) -> None:
    for handed in journal:
        if not handed.is_acknowledged:
            continue
        entry = entries.get((handed.queue_id or "", handed.recipient))
        if deliveries[handed.queue_id, handed.recipient]:
            continue
        if entry is None:
            verdict.faults["lost"].append(f"message {handed.number} ({handed.queue_id}) is nowhere")
        elif not entry.is_live and not entry.has_failed:
            verdict.faults["lost"].append(
                f"message {handed.number} ({handed.queue_id}) is {entry.status} and never arrived"
            )


def _judge_entry(verdict: Verdict, entry: Entry, delivered: int) -> None:
    name = _name(entry)
    verdict.queued += entry.is_live
    verdict.bounced += entry.has_failed and not _is_bounce(entry)
    verdict.doubts += entry.doubts
    again = max(0, delivered - 1)
    verdict.doubted += min(again, entry.doubts)
    if again > entry.doubts:
        verdict.faults["duplicate"].append(f"{name}: {delivered} times, {entry.doubts} doubts in the log")
    if delivered > entry.events.count("sending"):
        verdict.faults["unstarted"].append(f"{name}: {delivered} times, {entry.events.count('sending')} starts")
    if _is_bounce(entry) and entry.status == "sent" and not delivered:
        verdict.faults["lost"].append(f"{name}: a bounce that is sent and never arrived")
    if entry.is_stuck:
        verdict.faults["stuck"].append(f"{name}: {entry.status}, could go, and nothing happens")


def _look_for_unlogged(verdict: Verdict, entry: Entry, delivered: int) -> None:
    if delivered > entry.events.count("sent"):
        verdict.faults["unlogged"].append(
            f"{_name(entry)}: {delivered} times, {entry.events.count('sent')} logged as sent"
        )


def _look_for_strangers(
    verdict: Verdict,
    journal: Iterable[Handed],
    arrivals: Iterable[Delivered],
    entries: dict[tuple[str, str], Entry],
    octets: int,
) -> None:
    handed_in = {handed.number: handed for handed in journal}
    for arrival in arrivals:
        handed = handed_in.get(arrival.number) if arrival.number is not None else None
        if (arrival.queue_id, arrival.recipient) not in entries:
            verdict.faults["stranger"].append(f"{arrival.queue_id} to {arrival.recipient} is in no queue")
        elif arrival.number is not None and (handed is None or not handed.was_ended):
            verdict.faults["stranger"].append(f"{arrival.queue_id} to {arrival.recipient} was never handed in")
        if handed is not None and (
            (arrival.recipient, arrival.reverse_path) != (handed.recipient, handed.sender)
            or arrival.digest != digest(compose(handed.number, handed.sender, handed.recipient, octets))
        ):
            verdict.faults["corrupt"].append(f"message {handed.number} ({arrival.queue_id})")


def _look_at_bounces(verdict: Verdict, entries: Iterable[Entry]) -> None:
    bounces = Counter(entry.parent_id for entry in entries if _is_bounce(entry))
    failed: set[UUID] = set()
    for entry in entries:
        if entry.status not in ("failed", "bounced") or not entry.reverse_path or "cancelled" in entry.events:
            continue
        failed.add(entry.queue_id)
        if bounces[entry.queue_id] != 1:
            verdict.faults["bounce"].append(f"{entry.queue_id} has failed and has {bounces[entry.queue_id]} DSNs")
    for queue_id, count in bounces.items():
        if queue_id not in failed:
            verdict.faults["bounce"].append(f"{queue_id} has not failed and has {count} DSNs")


def _look_at_usage(
    verdict: Verdict, arrivals: Iterable[Delivered], database: Snapshot, entries: dict[tuple[str, str], Entry]
) -> None:
    for usage in database.usages:
        # What was under way when a window turned counts in the new one too, so an arrival after its turn is in it.
        began_at = usage.window_began_at
        sent = sum(
            entry is not None
            and entry.mailbox == usage.mailbox
            and not _is_bounce(entry)
            and (began_at is None or arrival.at >= began_at)
            for arrival in arrivals
            for entry in (entries.get((arrival.queue_id or "", arrival.recipient)),)
        )
        if usage.used < sent and began_at is not None:
            verdict.faults["usage"].append(f"{usage.mailbox}: {sent} delivered, {usage.used} counted")
        if usage.limit is not None and sent > usage.limit:
            verdict.faults["limit"].append(f"{usage.mailbox}: {sent} delivered, {usage.limit} allowed")


def _name(entry: Entry) -> str:
    return f"entry {entry.entry_id} of {entry.queue_id} to {entry.recipient}"


def _is_bounce(entry: Entry | None) -> bool:
    return entry is not None and entry.origin == "dsn"
