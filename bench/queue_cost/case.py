"""Cases: how much waits, behind how many exhausted mailboxes. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SIZES = (0, 10_000, 100_000, 1_000_000, 10_000_000)
SPREADS = (1, 10_000)
LARGEST = max(SIZES)

# Recipients that share one message and its body, so that what waits is entries and not text.
RECIPIENTS_PER_MESSAGE = 200

# Measured over a loaded case: entry, log row, their indexes, and as much again for the write-ahead log meanwhile.
OCTETS_PER_ENTRY = 1600


@dataclass(frozen=True, slots=True)
class Case:
    """`backlog` entries wait behind `mailboxes` that have sent their day's limit."""

    backlog: int
    mailboxes: int

    @property
    def database(self) -> str:
        """The name of the database that holds it."""
        return f"cost_{self.backlog}_{self.mailboxes}"

    @property
    def entries_per_mailbox(self) -> int:
        return self.backlog // self.mailboxes

    @property
    def recipients_per_message(self) -> int:
        return max(1, min(RECIPIENTS_PER_MESSAGE, self.entries_per_mailbox))


def cases(largest: int, spreads: Sequence[int] = SPREADS, *, sizes: Sequence[int] = SIZES) -> list[Case]:
    """Every size up to `largest`, over each number of mailboxes. Always with none, which the others are compared to."""
    chosen = sorted(size for size in {0, *sizes} if size <= largest)
    return [Case(size, mailboxes) for mailboxes in spreads for size in chosen]


def interleaved(wanted: Sequence[Case], rounds: int) -> Iterator[tuple[int, Case]]:
    """Each round runs every case, in turn forwards and backwards: what drifts on the machine spoils no one case."""
    for number in range(1, rounds + 1):
        for case in wanted if number % 2 else reversed(wanted):
            yield number, case


def octets_needed(wanted: Sequence[Case]) -> int:
    """Room on the disk for all of them."""
    return sum(case.backlog for case in wanted) * OCTETS_PER_ENTRY
