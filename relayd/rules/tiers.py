"""Tiers: how much a client may have."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Noun = Literal["domains", "mailboxes", "dedicated_ips"]
NOUNS: Mapping[Noun, tuple[str, str]] = {
    "domains": ("domain", "domains"),
    "mailboxes": ("mailbox", "mailboxes"),
    "dedicated_ips": ("dedicated IP", "dedicated IPs"),
}


@dataclass(frozen=True, slots=True)
class Tier:
    """At most so many of each; None is no limit."""

    name: str
    domains: int | None = None
    mailboxes: int | None = None
    dedicated_ips: int | None = None

    def limit(self, noun: Noun) -> int | None:
        """At most so many of this."""
        limit: int | None = getattr(self, noun)
        return limit


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a client has. A dedicated IP is a source address that an upstream of its own is bound to, counted once."""

    domains: int
    mailboxes: int
    dedicated_ips: int

    def count(self, noun: Noun) -> int:
        """How many of this."""
        count: int = getattr(self, noun)
        return count


DEFAULT_TIERS = (
    Tier("Ignition", domains=2, mailboxes=3, dedicated_ips=1),
    Tier("Velocity", domains=3, mailboxes=6, dedicated_ips=1),
    Tier("Dominance", domains=5, mailboxes=11, dedicated_ips=2),
)


def by_name(tiers: Iterable[Tier]) -> dict[str, Tier]:
    """The default tiers and these, which come first where names are the same."""
    return {tier.name: tier for tier in (*DEFAULT_TIERS, *tiers)}


def excess(tier: Tier, holdings: Holdings, nouns: Iterable[Noun] = NOUNS) -> Iterator[str]:
    """What of these is more than the tier allows, each as words: `3 domains where 2 are allowed`."""
    for noun in nouns:
        limit = tier.limit(noun)
        if limit is not None and holdings.count(noun) > limit:
            yield f"{amount(holdings.count(noun), noun)} where {limit} {'is' if limit == 1 else 'are'} allowed"


def amount(count: int | None, noun: Noun) -> str:
    """`1 domain`, `2 domains`, `any number of domains`."""
    one, many = NOUNS[noun]
    return f"any number of {many}" if count is None else f"{count} {one if count == 1 else many}"


def larger(tiers: Iterable[Tier], holdings: Holdings) -> Iterator[Tier]:
    """Those that allow all of this."""
    return (tier for tier in tiers if not any(excess(tier, holdings)))
